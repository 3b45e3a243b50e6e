/* A stand-in for the amdxdna kernel driver, preloaded below the real user-space driver (the "shim").
 *
 * The process believes in a Phoenix NPU: paths under /sys and /dev/accel lead to a made-up tree, ioctls on the device
 * node are answered here, memory comes from an anonymous file of the process. Commands run on a thread of their own,
 * as on the real chip: EXEC returns at once, the state word of the packet changes when the work is done. What the work
 * is, a test says: a callback that gets the packet, or nothing at all. Knobs inject what hardware does on a bad day.
 *
 * Environment: NPU_STANDIN_ROOT (the made-up tree), NPU_STANDIN_LOG (contexts and runs, one line each, with the pid),
 * NPU_STANDIN_<KNOB>=n for the knobs below.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <drm/amdxdna_accel.h>
#include <drm/drm.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- knobs ------------------------------------------------------------------------------------------------ */

enum knob {
  CONTEXT_LIMIT, /* contexts of all processes together; the next create fails with EINVAL */
  HEAP_BYTES,    /* device heap for instructions */
  ALLOC_FAILS,   /* the next n buffer allocations (instructions too) fail with ENOMEM */
  HANG,          /* the next n commands never finish by themselves, -1 all */
  WATCHDOG_MS,   /* a hung command ends in WATCHDOG_STATE after this time; 0: never */
  WATCHDOG_STATE,
  FAIL,          /* the next n commands end in FAIL_STATE without touching memory */
  FAIL_STATE,
  SKIP,          /* the next n commands end COMPLETED without the callback: outputs stay as they were */
  DELAY_US,      /* every command takes at least this long */
  SYNCOBJ,       /* 1: contexts have a sync object (in-tree driver), 0: WAIT_CMD (out-of-tree driver) */
  GONE,          /* 1: every ioctl fails with ENODEV */
  DENY,          /* 1: the device node can't be opened (EACCES) */
  MEMLOCK_BYTES, /* locked mappings above this fail with EAGAIN; 0: no limit */
  SUBMIT_FAILS,  /* the next n EXEC ioctls fail with EIO */
  KNOBS
};
static const char *const knob_names[KNOBS] = {
    "CONTEXT_LIMIT", "HEAP_BYTES", "ALLOC_FAILS", "HANG", "WATCHDOG_MS", "WATCHDOG_STATE", "FAIL", "FAIL_STATE",
    "SKIP", "DELAY_US", "SYNCOBJ", "GONE", "DENY", "MEMLOCK_BYTES", "SUBMIT_FAILS"};
static volatile long knobs[KNOBS] = {[CONTEXT_LIMIT] = 6, [HEAP_BYTES] = 64 << 20, [WATCHDOG_STATE] = 8,
                                     [FAIL_STATE] = 5, [SYNCOBJ] = 1};

enum counter { RUNS, CONTEXTS_MADE, CONTEXTS_CLOSED, SYNCS, SYNC_BYTES, WAITS, BUFFERS_LIVE, COUNTERS };
static const char *const counter_names[COUNTERS] = {"RUNS", "CONTEXTS_MADE", "CONTEXTS_CLOSED", "SYNCS",
                                                    "SYNC_BYTES", "WAITS", "BUFFERS_LIVE"};
static volatile long counters[COUNTERS];

static int find(const char *name, const char *const *names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(name, names[i]))
      return i;
  return -1;
}
int standin_set(const char *name, long value) {
  int i = find(name, knob_names, KNOBS);
  if (i >= 0)
    knobs[i] = value;
  return i;
}
long standin_get(const char *name) {
  int i = find(name, counter_names, COUNTERS);
  if (i >= 0)
    return counters[i];
  i = find(name, knob_names, KNOBS);
  return i < 0 ? -1 : knobs[i];
}
__attribute__((constructor)) static void knobs_from_environment(void) {
  char name[64];
  for (int i = 0; i < KNOBS; i++) {
    snprintf(name, sizeof name, "NPU_STANDIN_%s", knob_names[i]);
    const char *value = getenv(name);
    if (value)
      knobs[i] = atol(value);
  }
}
static int take(enum knob k) { /* one use of a "next n" knob; -1 means for ever */
  if (!knobs[k])
    return 0;
  if (knobs[k] > 0)
    knobs[k]--;
  return 1;
}

static void note(const char *format, ...) {
  const char *path = getenv("NPU_STANDIN_LOG");
  if (!path)
    return;
  char line[256];
  int n = snprintf(line, sizeof line, "%d ", getpid());
  va_list args;
  va_start(args, format);
  n += vsnprintf(line + n, sizeof line - n - 1, format, args);
  va_end(args);
  line[n++] = '\n';
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (fd >= 0) {
    if (write(fd, line, n) < 0)
      perror("NPU_STANDIN_LOG");
    close(fd);
  }
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* ---- memory ----------------------------------------------------------------------------------------------- */

#define HEAP_ADDRESS 0x4000000ull
#define PAGE 4096ull
enum { MAX_BUFFERS = 1 << 16 };
struct buffer {
  int type; /* enum amdxdna_bo_type, 0: free */
  uint64_t size, offset, address;
  void *user, *mapped, *seen; /* given by the process; mapped here; where the process mapped it */
};
static struct buffer buffers[MAX_BUFFERS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int memory_fd = -1;
static uint64_t memory_end = 1 << 20, heap_offset, heap_size;

static uint64_t round_up(uint64_t x, uint64_t to) { return (x + to - 1) / to * to; }

static int memory(void) {
  if (memory_fd < 0)
    memory_fd = memfd_create("npu-standin", MFD_CLOEXEC);
  return memory_fd;
}
static uint64_t grow(uint64_t size, uint64_t align) {
  uint64_t at = round_up(memory_end, align);
  memory_end = at + round_up(size, PAGE);
  return ftruncate(memory(), memory_end) ? 0 : at;
}
/* first gap of the heap that is large enough, or -1 */
static int64_t heap_place(uint64_t size) {
  uint64_t at = 0;
  for (int again = 1; again;) {
    again = 0;
    for (int i = 1; i < MAX_BUFFERS; i++) {
      struct buffer *b = &buffers[i];
      if (b->type != AMDXDNA_BO_DEV)
        continue;
      uint64_t from = b->address - HEAP_ADDRESS, to = round_up(from + b->size, PAGE);
      if (from < at + size && at < to)
        at = to, again = 1;
    }
  }
  return at + size <= heap_size ? (int64_t)at : -1;
}
static void *contents(uint32_t handle) {
  struct buffer *b = &buffers[handle];
  if (b->user)
    return b->user;
  if (!b->mapped && b->type) {
    uint64_t at = b->type == AMDXDNA_BO_DEV ? heap_offset + b->address - HEAP_ADDRESS : b->offset;
    char *m = mmap(0, b->size + at % PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory(), at - at % PAGE);
    b->mapped = m == MAP_FAILED ? 0 : m + at % PAGE;
  }
  return b->mapped;
}
/* for callbacks: the memory at a device address, and how many bytes follow it in its buffer */
void *standin_memory(uint64_t address, uint64_t *left) {
  void *found = 0;
  pthread_mutex_lock(&lock);
  for (int i = 1; i < MAX_BUFFERS && !found; i++) {
    struct buffer *b = &buffers[i];
    /* ordinary buffers carry the process's own addresses (shared virtual memory), instructions heap addresses */
    uint64_t base = b->user || b->seen ? (uintptr_t)(b->user ? b->user : b->seen) : b->address;
    if (b->type && b->type != AMDXDNA_BO_DEV_HEAP && base != AMDXDNA_INVALID_ADDR && address >= base &&
        address < base + b->size) {
      *left = b->size - (address - base);
      found = (char *)contents(i) + (address - base);
    }
  }
  pthread_mutex_unlock(&lock);
  return found;
}

static int create_buffer(struct amdxdna_drm_create_bo *a) {
  if ((a->type == AMDXDNA_BO_DEV || a->type == AMDXDNA_BO_SHARE) && take(ALLOC_FAILS))
    return ENOMEM;
  uint32_t handle = 1;
  while (handle < MAX_BUFFERS && buffers[handle].type)
    handle++;
  if (handle == MAX_BUFFERS)
    return ENOSPC;
  struct buffer b = {.type = a->type, .size = a->size, .offset = AMDXDNA_INVALID_ADDR, .address = AMDXDNA_INVALID_ADDR};
  if (a->vaddr) {
    struct amdxdna_drm_va_tbl *table = (void *)(uintptr_t)a->vaddr;
    b.user = (void *)(uintptr_t)table->va_entries[0].vaddr;
    b.size = table->va_entries[0].len;
  } else if (a->type == AMDXDNA_BO_DEV) {
    int64_t at = heap_place(a->size);
    if (at < 0)
      return ENOSPC;
    b.address = HEAP_ADDRESS + at;
  } else if (a->type == AMDXDNA_BO_DEV_HEAP) {
    if (heap_size) /* there is one heap */
      return EBUSY;
    b.offset = heap_offset = grow(a->size, 64 << 20);
    heap_size = a->size < (uint64_t)knobs[HEAP_BYTES] ? a->size : (uint64_t)knobs[HEAP_BYTES];
    b.address = HEAP_ADDRESS;
  } else {
    b.offset = grow(a->size, PAGE);
  }
  buffers[handle] = b;
  a->handle = handle;
  counters[BUFFERS_LIVE]++;
  return 0;
}
static int close_buffer(uint32_t handle) {
  struct buffer *b = &buffers[handle];
  if (b->mapped)
    munmap((void *)((uintptr_t)b->mapped / PAGE * PAGE), b->size + (uintptr_t)b->mapped % PAGE);
  if (b->type == AMDXDNA_BO_DEV_HEAP)
    heap_size = 0;
  if (b->offset != AMDXDNA_INVALID_ADDR)
    fallocate(memory(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, b->offset, round_up(b->size, PAGE));
  memset(b, 0, sizeof *b);
  counters[BUFFERS_LIVE]--;
  return 0;
}

/* ---- contexts: counted over all processes, in a file ------------------------------------------------------- */

static pid_t owner; /* who opened the device: a forked child shares its parent's contexts, and can close them */

static int change_contexts(long handle, int add) {
  char path[PATH_MAX], kept[8192];
  snprintf(path, sizeof path, "%s/contexts", getenv("NPU_STANDIN_ROOT") ?: "/tmp");
  int fd = open(path, O_RDWR | O_CREAT, 0666), n = 0, used = 0;
  if (fd < 0)
    return EIO;
  flock(fd, LOCK_EX);
  FILE *f = fdopen(fd, "r+");
  long pid, h;
  while (fscanf(f, "%ld %ld", &pid, &h) == 2)
    if ((pid != owner || h != handle) && (pid == owner || !kill(pid, 0)) && n < 8000) {
      n += sprintf(kept + n, "%ld %ld\n", pid, h);
      used++;
    }
  int error = add && used >= knobs[CONTEXT_LIMIT] ? EINVAL : 0;
  if (add && !error)
    n += sprintf(kept + n, "%d %ld\n", owner, handle);
  rewind(f);
  fwrite(kept, 1, n, f);
  fflush(f);
  if (ftruncate(fd, n))
    error = EIO;
  fclose(f);
  return error;
}

/* ---- commands --------------------------------------------------------------------------------------------- */

typedef int (*array_callback)(uint32_t context, const uint32_t *packet, uint32_t words);
static array_callback callback;
void standin_callback(array_callback f) { callback = f; }

enum { QUEUE = 64, MAX_CONTEXTS = 4096 };
struct job {
  uint32_t context, handle;
  uint64_t sequence;
};
static struct job queue[QUEUE];
static uint64_t queued, done, submitted_of[MAX_CONTEXTS], finished_of[MAX_CONTEXTS];
static char closed[MAX_CONTEXTS];
static uint32_t context_of_syncobj[MAX_CONTEXTS], contexts = 1, syncobjs = 1;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int worker_running;

/* What the command ends in. Called without the lock: the callback may need the interpreter's own lock. */
static int execute(struct job *job) {
  int64_t started = now_ns();
  if (knobs[DELAY_US] > 0)
    usleep(knobs[DELAY_US]);
  if (take(HANG)) {
    while (!closed[job->context]) {
      if (knobs[WATCHDOG_MS] && now_ns() - started > knobs[WATCHDOG_MS] * 1000000ll)
        return knobs[WATCHDOG_STATE];
      usleep(500);
    }
    return 6;
  }
  if (take(FAIL))
    return knobs[FAIL_STATE];
  if (take(SKIP) || !callback)
    return 4;
  uint32_t *packet = contents(job->handle);
  uint32_t words = (packet[0] >> 12 & 0x7ff) + 1, opcode = packet[0] >> 23 & 0x1f;
  return opcode ? 5 : callback(job->context, packet, words); /* ERT_START_CU is 0; nothing else is understood */
}
static void *worker(void *unused) {
  (void)unused;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (done == queued)
      pthread_cond_wait(&changed, &lock);
    struct job job = queue[done % QUEUE];
    pthread_mutex_unlock(&lock);
    int state = execute(&job);
    pthread_mutex_lock(&lock);
    volatile uint32_t *packet = buffers[job.handle].type ? contents(job.handle) : 0;
    if (packet)
      packet[0] = (packet[0] & ~15u) | (state & 15);
    finished_of[job.context] = job.sequence;
    done++;
    pthread_cond_broadcast(&changed);
  }
  return 0;
}
static int submit(struct amdxdna_drm_exec_cmd *a) {
  if (take(SUBMIT_FAILS))
    return EIO;
  pthread_t thread;
  if (!worker_running && pthread_create(&thread, 0, worker, 0))
    return EAGAIN;
  worker_running = 1;
  if (queued - done == QUEUE)
    return EAGAIN;
  a->seq = ++submitted_of[a->hwctx];
  queue[queued++ % QUEUE] = (struct job){a->hwctx, (uint32_t)a->cmd_handles, a->seq};
  counters[RUNS]++;
  note("RUN context=%u", a->hwctx);
  pthread_cond_broadcast(&changed);
  return 0;
}
/* until: CLOCK_MONOTONIC ns */
static int wait_for(uint32_t context, uint64_t sequence, int64_t until) {
  counters[WAITS]++;
  while (finished_of[context] < sequence) {
    if (now_ns() >= until)
      return ETIME;
    pthread_mutex_unlock(&lock);
    usleep(200);
    pthread_mutex_lock(&lock);
  }
  return 0;
}

static int create_context(struct amdxdna_drm_create_hwctx *a) {
  int error = contexts == MAX_CONTEXTS ? ENOSPC : change_contexts(contexts, 1);
  note("CREATE context=%u error=%d", contexts, error);
  if (error)
    return error;
  a->handle = contexts++;
  a->syncobj_handle = knobs[SYNCOBJ] ? syncobjs++ : 0;
  context_of_syncobj[a->syncobj_handle] = a->handle;
  a->umq_doorbell = AMDXDNA_INVALID_DOORBELL_OFFSET;
  counters[CONTEXTS_MADE]++;
  return 0;
}
static int destroy_context(uint32_t handle) {
  note("DESTROY context=%u", handle);
  closed[handle] = 1;
  counters[CONTEXTS_CLOSED]++;
  return change_contexts(handle, 0);
}

/* ---- ioctls ----------------------------------------------------------------------------------------------- */

static int get_info(struct amdxdna_drm_get_info *a) {
  void *out = (void *)(uintptr_t)a->buffer;
  memset(out, 0, a->buffer_size);
  if (a->param == DRM_AMDXDNA_QUERY_AIE_METADATA) {
    *(struct amdxdna_drm_query_aie_metadata *)out = (struct amdxdna_drm_query_aie_metadata){
        .col_size = 1 << 25, .cols = 5, .rows = 6, .version = {.major = 2},
        .core = {.row_count = 4, .row_start = 2, .dma_channel_count = 2, .lock_count = 16},
        .mem = {.row_count = 1, .row_start = 1, .dma_channel_count = 6, .lock_count = 64},
        .shim = {.row_count = 1, .row_start = 0, .dma_channel_count = 2, .lock_count = 16}};
  } else if (a->param == DRM_AMDXDNA_QUERY_AIE_VERSION) {
    ((struct amdxdna_drm_query_aie_version *)out)->major = 2;
  } else if (a->param == DRM_AMDXDNA_QUERY_CLOCK_METADATA) {
    *(struct amdxdna_drm_query_clock_metadata *)out = (struct amdxdna_drm_query_clock_metadata){
        .mp_npu_clock = {"MP-NPU Clock", 400, 0}, .h_clock = {"H Clock", 800, 0}};
  } else if (a->param == DRM_AMDXDNA_QUERY_FIRMWARE_VERSION) {
    *(struct amdxdna_drm_query_firmware_version *)out = (struct amdxdna_drm_query_firmware_version){1, 5, 5, 391};
  }
  return 0;
}
/* the contexts of this process; nothing else is listed */
static int get_array(struct amdxdna_drm_get_array *a) {
  uint32_t room = a->num_element;
  struct amdxdna_drm_hwctx_entry entry, *out = (void *)(uintptr_t)a->buffer;
  a->num_element = 0;
  if (a->param != DRM_AMDXDNA_HW_CONTEXT_ALL || a->element_size < sizeof entry)
    return a->param == DRM_AMDXDNA_HW_CONTEXT_ALL ? EINVAL : 0;
  a->element_size = sizeof entry;
  for (uint32_t c = 1; c < contexts && a->num_element < room; c++)
    if (!closed[c]) {
      memset(&entry, 0, sizeof entry);
      entry.context_id = c, entry.pid = owner, entry.num_col = 4;
      out[a->num_element++] = entry;
    }
  return 0;
}
static int answer(unsigned number, void *p) {
  if (knobs[GONE])
    return ENODEV;
  switch (number) {
  case DRM_COMMAND_BASE + DRM_AMDXDNA_CREATE_BO:
    return create_buffer(p);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_GET_BO_INFO: {
    struct amdxdna_drm_get_bo_info *a = p;
    struct buffer *b = &buffers[a->handle];
    a->map_offset = b->offset, a->xdna_addr = b->address, a->vaddr = (uintptr_t)b->user;
    return 0;
  }
  case _IOC_NR(DRM_IOCTL_GEM_CLOSE):
    return close_buffer(((struct drm_gem_close *)p)->handle);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_SYNC_BO:
    counters[SYNCS]++;
    counters[SYNC_BYTES] += ((struct amdxdna_drm_sync_bo *)p)->size;
    return 0;
  case DRM_COMMAND_BASE + DRM_AMDXDNA_CREATE_HWCTX:
    return create_context(p);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_DESTROY_HWCTX:
    return destroy_context(((struct amdxdna_drm_destroy_hwctx *)p)->handle);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_EXEC_CMD:
    return submit(p);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_WAIT_CMD: {
    struct amdxdna_drm_wait_cmd *a = p;
    return wait_for(a->hwctx, a->seq, a->timeout ? now_ns() + a->timeout * 1000000ll : INT64_MAX);
  }
  case _IOC_NR(DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT): {
    struct drm_syncobj_timeline_wait *a = p;
    uint32_t handle = *(uint32_t *)(uintptr_t)a->handles;
    return wait_for(context_of_syncobj[handle], *(uint64_t *)(uintptr_t)a->points, a->timeout_nsec);
  }
  case _IOC_NR(DRM_IOCTL_SYNCOBJ_CREATE):
    ((struct drm_syncobj_create *)p)->handle = syncobjs++;
    return 0;
  case DRM_COMMAND_BASE + DRM_AMDXDNA_GET_INFO:
    return get_info(p);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_GET_ARRAY:
    return get_array(p);
  case DRM_COMMAND_BASE + DRM_AMDXDNA_CONFIG_HWCTX:
  case DRM_COMMAND_BASE + DRM_AMDXDNA_SET_STATE:
  case _IOC_NR(DRM_IOCTL_SYNCOBJ_DESTROY):
  case _IOC_NR(DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL):
    return 0;
  }
  note("UNKNOWN ioctl %#x", number);
  return ENOTTY;
}

/* ---- what the process sees instead of libc's functions ----------------------------------------------------- */

#define NEXT(name)                                                                                                \
  static __typeof__(name) *next;                                                                                  \
  if (!next)                                                                                                      \
    next = (__typeof__(next))dlsym(RTLD_NEXT, #name)

static const char *elsewhere(const char *path, char *room) {
  const char *root = getenv("NPU_STANDIN_ROOT");
  if (!root || !path ||
      (strncmp(path, "/sys/bus/", 9) && strncmp(path, "/sys/devices/", 13) && strncmp(path, "/dev/accel", 10)))
    return path;
  snprintf(room, PATH_MAX, "%s%s", root, path);
  return room;
}
static int is_device(int fd) {
  static struct stat node;
  struct stat s;
  char room[PATH_MAX];
  if (!node.st_ino && stat(elsewhere("/dev/accel/accel0", room), &node))
    return 0;
  return !fstat(fd, &s) && s.st_ino == node.st_ino && s.st_dev == node.st_dev;
}
int ioctl(int fd, unsigned long request, ...) {
  NEXT(ioctl);
  va_list args;
  va_start(args, request);
  void *p = va_arg(args, void *);
  va_end(args);
  if (_IOC_TYPE(request) != 'd' || !is_device(fd))
    return next(fd, request, p);
  pthread_mutex_lock(&lock);
  if (!owner)
    owner = getpid();
  int error = answer(_IOC_NR(request), p);
  pthread_mutex_unlock(&lock);
  errno = error;
  return error ? -1 : 0;
}
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  NEXT(mmap);
  if (fd >= 0 && is_device(fd)) {
    if (flags & MAP_LOCKED && knobs[MEMLOCK_BYTES] && size > (size_t)knobs[MEMLOCK_BYTES]) {
      errno = EAGAIN;
      return MAP_FAILED;
    }
    void *mapped = next(at, size, protection, flags & ~MAP_LOCKED, memory(), offset);
    pthread_mutex_lock(&lock);
    for (int i = 1; i < MAX_BUFFERS; i++)
      if (buffers[i].type && buffers[i].offset == (uint64_t)offset && !buffers[i].user)
        buffers[i].seen = mapped;
    pthread_mutex_unlock(&lock);
    return mapped;
  }
  return next(at, size, protection, flags, fd, offset);
}
static int denied(const char *path) {
  if (!knobs[DENY] || strncmp(path, "/dev/accel/", 11))
    return 0;
  errno = EACCES;
  return 1;
}
#define OPEN(name)                                                                                                \
  int name(const char *path, int flags, ...) {                                                                    \
    NEXT(name);                                                                                                   \
    va_list args;                                                                                                 \
    va_start(args, flags);                                                                                        \
    int mode = va_arg(args, int);                                                                                 \
    va_end(args);                                                                                                 \
    char room[PATH_MAX];                                                                                          \
    return denied(path) ? -1 : next(elsewhere(path, room), flags, mode);                                          \
  }
OPEN(open)
OPEN(open64)
int openat(int folder, const char *path, int flags, ...) {
  NEXT(openat);
  va_list args;
  va_start(args, flags);
  int mode = va_arg(args, int);
  va_end(args);
  char room[PATH_MAX];
  return denied(path) ? -1 : next(folder, elsewhere(path, room), flags, mode);
}
#define REDIRECT(type, name, parameters, ...)                                                                     \
  type name parameters {                                                                                          \
    NEXT(name);                                                                                                   \
    char room[PATH_MAX];                                                                                          \
    return next(__VA_ARGS__);                                                                                     \
  }
REDIRECT(FILE *, fopen, (const char *path, const char *mode), elsewhere(path, room), mode)
REDIRECT(FILE *, fopen64, (const char *path, const char *mode), elsewhere(path, room), mode)
REDIRECT(DIR *, opendir, (const char *path), elsewhere(path, room))
REDIRECT(int, stat, (const char *path, struct stat *s), elsewhere(path, room), s)
REDIRECT(int, stat64, (const char *path, struct stat64 *s), elsewhere(path, room), s)
REDIRECT(int, lstat, (const char *path, struct stat *s), elsewhere(path, room), s)
REDIRECT(int, access, (const char *path, int mode), elsewhere(path, room), mode)
REDIRECT(ssize_t, readlink, (const char *path, char *out, size_t size), elsewhere(path, room), out, size)
char *realpath(const char *path, char *out) {
  NEXT(realpath);
  char room[PATH_MAX], *found = next(elsewhere(path, room), out);
  const char *root = getenv("NPU_STANDIN_ROOT");
  size_t n = root ? strlen(root) : 0;
  if (found && n && !strncmp(found, root, n) && !strncmp(found + n, "/sys/", 5))
    memmove(found, found + n, strlen(found + n) + 1);
  return found;
}
