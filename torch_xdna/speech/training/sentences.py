"""The task: spoken commands, numbers and short sentences over about 300 words, drawn from templates.

Every sentence is lower case without punctuation, numbers are words. A sentence belongs to the held-out split
when the hash of its text says so, hence no training clip, in any voice, ever carries a held-out sentence.
"""

from __future__ import annotations

import hashlib
import random
import re

HELD_OUT_SHARE = 0.1  # of the sentences

# slot: its words ("|" between them where an entry has several)
_WORDS = """
ones: zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
tens: twenty thirty forty fifty sixty seventy eighty ninety
color: red green blue yellow orange purple black white brown silver
name: anna peter maria david laura robert julia thomas emma oliver sophie daniel martin helen
room: kitchen bedroom bathroom office garage garden hallway basement library studio
device: light lamp fan heater television radio printer camera oven computer
opening: door window curtain gate box drawer
unit: seconds minutes hours days weeks
day: monday tuesday wednesday thursday friday saturday sunday
month: january february march april may june july august september october november december
when: today tomorrow tonight later now
food: bread butter cheese milk sugar coffee tea apples bananas potatoes tomatoes rice chicken fish soup
    salad
animal: dog cat horse bird rabbit mouse tiger monkey elephant turtle
adjective: small big old young happy quiet hungry lazy clever strange heavy broken
moved: walked jumped waited slept played worked stopped looked
preposition: behind under near around inside across
place: river bridge mountain station school market church forest house street airport hospital
city: london paris berlin rome madrid vienna dublin oslo tokyo chicago
music: jazz rock classical piano guitar country
verb: bought found lost sold painted counted moved needed
object: books chairs tables bottles boxes pictures letters keys flowers cups
task: water the plants | clean the kitchen | feed the dog | charge the phone | wash the car | lock the door
    | pay the bill | finish the report | read the letter | buy some flowers
direction: left right up down forward back
level: volume temperature brightness speed
"""


def _parse(table: str) -> dict[str, list[str]]:
    rows = (row.split(":") for row in re.sub(r"\n\s+", " ", table).strip().splitlines())
    return {
        slot: [entry.strip() for entry in (re.split(r"\|" if "|" in text else r"\s+", text.strip()))]
        for slot, text in rows
    }


WORDS = _parse(_WORDS)
ONES, TENS = WORDS.pop("ones"), WORDS.pop("tens")

TEMPLATES = """
turn on the {device} in the {room}
turn off the {device} in the {room}
switch the {color} {device} on
please turn the {level} {direction}
set the {level} to {number} percent
set a timer for {number} {unit}
set an alarm for {small} thirty on {day}
wake me up at {small} on {day} morning
open the {opening} in the {room}
close the {color} {opening}
play some {music} music in the {room}
stop the music {when}
call {name} {when}
send a message to {name} and {name}
remind me to {task} {when}
remind {name} to {task} on {day}
what is {number} plus {number}
what is {number} minus {number}
what is {number} times {small}
what time is it in {city}
what is the weather in {city} {when}
how far is it from {city} to {city}
add {food} and {food} to the shopping list
we need {number} {object} for the {room}
go {direction} and then {direction}
show me the {place} in {city}
book a table in {city} for {day} night
the {adjective} {animal} {moved} {preposition} the {place}
the {color} {animal} {moved} {preposition} the {adjective} {place}
my {animal} is very {adjective} {when}
{name} {verb} {number} {object} in {city}
{name} {verb} the {adjective} {device} on {day}
{name} and {name} {moved} {preposition} the {place}
the meeting with {name} is on {month} {small}
the train to {city} leaves at {small} fifteen
my number is {digits}
the code is {digits}
start counting from {number} to {number}
there are {number} {object} on the table
{name} would like {food} with {food}
where is the {adjective} {place}
is the {opening} of the {room} open or closed
she said that the {food} was {adjective}
he will be in {city} from {month} to {month}
""".strip().splitlines()

# Words that sound like another word of the task; only a sentence tells them apart, so loose lists leave them
# out.
HOMOPHONES = {"to", "for", "two", "four", "read", "red", "by", "buy", "a", "an", "the"}


def sentence(rng: random.Random) -> str:
    """One sentence: usually a template, at times a bare number or a list of unrelated words."""
    kind = rng.random()
    if kind < 0.08:
        return number_words(rng.randrange(10_000))
    if kind < 0.14:
        return " ".join(rng.choice(ONES[:10]) for _ in range(rng.randint(3, 7)))
    if kind < 0.30:
        return " ".join(rng.choice(LOOSE) for _ in range(rng.randint(1, 6)))
    return re.sub(r"\{(\w+)\}", lambda match: _fill(match[1], rng), rng.choice(TEMPLATES))


def number_words(value: int) -> str:
    """0 to 9999 in words, the British way: 2107 is "two thousand one hundred and seven"."""
    if value < 20:
        return ONES[value]
    if value < 100:
        return TENS[value // 10 - 2] + (f" {ONES[value % 10]}" if value % 10 else "")
    if value < 1000:
        rest = f" and {number_words(value % 100)}" if value % 100 else ""
        return f"{ONES[value // 100]} hundred{rest}"
    rest_value = value % 1000
    joint = " and " if 0 < rest_value < 100 else " "
    return f"{ONES[value // 1000]} thousand" + (joint + number_words(rest_value) if rest_value else "")


def is_held_out(text: str) -> bool:
    """Whether this sentence belongs to the held-out split (a property of its text alone)."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "little") / 2**32 < HELD_OUT_SHARE


def vocabulary() -> list[str]:
    """Every word of the task, sorted."""
    texts = (
        [re.sub(r"\{\w+\}", " ", line) for line in TEMPLATES] + ONES + TENS + ["hundred", "thousand", "and"]
    )
    for entries in WORDS.values():
        texts.extend(entries)
    return sorted({word for text in texts for word in text.split()})


def _fill(slot: str, rng: random.Random) -> str:
    if slot == "number":
        return number_words(rng.randrange(10 ** rng.randint(1, 3)))
    if slot == "small":
        return ONES[rng.randint(1, 12)]
    if slot == "digits":
        return " ".join(rng.choice(ONES[:10]) for _ in range(rng.randint(3, 6)))
    return rng.choice(WORDS[slot])


LOOSE = [word for word in vocabulary() if word not in HOMOPHONES]
