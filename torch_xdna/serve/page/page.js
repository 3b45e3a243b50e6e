"use strict";
// Sends a recording to this server's own OpenAI interface and shows the text as it comes.
const at = (id) => document.getElementById(id);
let running = null; // the AbortController of the request that runs
let recorder = null;

function say(text, wrong = false) {
  at("status").textContent = text || "\u00a0";
  at("status").classList.toggle("wrong", wrong);
}

function headers() {
  const key = at("key").value.trim();
  return key ? { Authorization: "Bearer " + key } : {};
}

async function transcribe(recording, name) {
  if (running) running.abort();
  const mine = (running = new AbortController());
  for (const id of ["segments", "keep"]) at(id).hidden = true;
  at("text").textContent = "";
  say("Listening to " + name + " …");
  const form = new FormData();
  form.append("file", recording, "recording");
  form.append("stream", "true");
  const translate = at("translate").checked;
  const language = at("language").value.trim();
  if (language && !translate) form.append("language", language);
  const path = translate ? "/v1/audio/translations" : "/v1/audio/transcriptions";
  try {
    const answer = await fetch(path, { method: "POST", body: form, headers: headers(), signal: mine.signal });
    if (answer.status === 401) at("key-row").hidden = false;
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    await events(answer.body, (event) => show(event, answer.headers.get("X-Torch-Xdna-Note")));
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  } finally {
    if (running === mine) running = null;
  }
}

// Server-sent events of a POST, which EventSource can't make.
async function events(body, each) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", last = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((l) => l.startsWith("data: ")).map((l) => l.slice(6)).join("\n");
      if (data) each((last = JSON.parse(data)));
    }
  }
  if (!last || (last.type !== "transcript.text.done" && !last.error)) throw new Error("The server broke off.");
}

function show(event, note) {
  if (event.error) throw new Error(event.error.message);
  if (event.type === "transcript.text.delta") at("text").textContent += event.delta;
  if (event.type !== "transcript.text.done") return;
  at("text").textContent = event.text;
  const rows = event.segments.map((segment) => {
    const row = document.createElement("tr");
    for (const cell of [clock(segment.start, ".").slice(3, 11), segment.text]) row.insertCell().textContent = cell;
    return row;
  });
  at("segments").tBodies[0].replaceChildren(...rows);
  at("segments").hidden = rows.length < 2;
  keep("txt", event.text + "\n");
  keep("srt", event.segments.map((s, i) =>
    `${i + 1}\n${clock(s.start, ",")} --> ${clock(s.end, ",")}\n${s.text}\n`).join("\n"));
  at("keep").hidden = !event.text;
  const language = new Intl.DisplayNames(["en"], { type: "language" }).of(event.language);
  const what = `${event.duration.toFixed(1)} s of ${language}, computed on ${event.device}.`;
  say(event.text ? what + (note ? " " + note + "." : "") : "No speech was heard in " + what);
}

function keep(id, content) {
  URL.revokeObjectURL(at(id).href);
  at(id).href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
}

function clock(seconds, point) {
  const ms = Math.round(seconds * 1000);
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  return `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}${point}${String(ms % 1000).padStart(3, "0")}`;
}

async function speak() {
  if (recorder) return recorder.stop();
  if (!navigator.mediaDevices) return say("A browser lets a page listen on localhost or over https only.", true);
  try {
    const sound = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    recorder = new MediaRecorder(sound);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      sound.getTracks().forEach((track) => track.stop());
      const kind = recorder.mimeType;
      recorder = null;
      at("speak").textContent = "Speak";
      at("speak").classList.remove("live");
      transcribe(new Blob(parts, { type: kind }), "you");
    };
    recorder.start();
    at("speak").textContent = "Stop";
    at("speak").classList.add("live");
    say("Speak now.");
  } catch (error) {
    say("The microphone can't be used: " + error.message, true);
  }
}

async function greet() {
  try {
    const health = await (await fetch("/health", { headers: headers() })).json();
    at("key-row").hidden = "model" in health;
    at("where").textContent = health.model ? `${health.model} on ${health.device}` : "";
  } catch {
    say("The server does not answer.", true);
  }
}

at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) transcribe(file, file.name);
});
at("speak").addEventListener("click", speak);
at("key").addEventListener("change", greet);
at("key-row").addEventListener("submit", (event) => {
  event.preventDefault();
  greet();
});
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(at("text").textContent);
  say("Copied.");
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a file dropped beside the box would open instead
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) transcribe(file, file.name);
});
greet();
