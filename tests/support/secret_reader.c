// Reads secrets in a loop and checks every byte, while the test rotates them and kills processes. Built static, for an
// empty container. The content describes itself, so that a mixed, cut, padded or stale read cannot pass:
//
//   LATCHKEY-TEST <number> <bytes of the body> <sha256 of the body>\n<body>
//
//   secret_reader --make NUMBER BODY_BYTES             prints such content; body and length follow from the arguments
//   secret_reader --loop [--threads N] [--reads N] [--hold] PATH...
//       until SIGTERM, SIGINT or N reads in all; then one line:
//       {"reads":N,"errors":N,"first_error":"...","wrong":N,"first_wrong":"...","backwards":N,"held_wrong":N,
//        "lowest":N,"highest":N,"max_read_us":N}
//       errors: a call failed; wrong: the content does not describe itself; backwards: a later open by the same thread
//       gave an older version; held_wrong: a descriptor held since the start read something else than at first.
//       Exit status 0 only when all four are 0 and something was read. --hold keeps such a descriptor for each path.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sha256.h"

enum { kMaxPaths = 64, kMaxThreads = 32, kMaxBytes = 9 * 1024 * 1024 };

static const char* paths[kMaxPaths];
static int path_count, hold;
static long long reads_wanted = -1;
static atomic_bool stop;
static atomic_llong reads, errors, wrong, backwards, held_wrong, lowest, highest, max_read_us;
static pthread_mutex_t first_lock = PTHREAD_MUTEX_INITIALIZER;
static char first_error[256], first_wrong[256];

static long long NowUs(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long long)t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void OnSignal(int signal_number) {
  (void)signal_number;
  atomic_store(&stop, 1);
}

static void Remember(char* place, const char* what, const char* path) {
  pthread_mutex_lock(&first_lock);
  if (place[0] == 0) snprintf(place, 256, "%s: %s", path, what);
  pthread_mutex_unlock(&first_lock);
}

static void Raise(atomic_llong* place, long long value) {
  long long seen = atomic_load(place);
  while (value > seen && !atomic_compare_exchange_weak(place, &seen, value)) {
  }
}

static void Lower(atomic_llong* place, long long value) {
  long long seen = atomic_load(place);
  while ((seen == 0 || value < seen) && !atomic_compare_exchange_weak(place, &seen, value)) {
  }
}

static void FillBody(unsigned long long number, unsigned char* body, size_t size) {
  unsigned long long x = number * 0x9e3779b97f4a7c15ULL + 1;
  for (size_t i = 0; i < size; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    body[i] = "abcdefghijklmnopqrstuvwxyz012345"[x >> 59];
  }
}

static int Make(unsigned long long number, size_t size) {
  unsigned char* body = malloc(size + 1);
  if (body == NULL) return 1;
  FillBody(number, body, size);
  char digest[65];
  Sha256Hex(body, size, digest);
  printf("LATCHKEY-TEST %llu %zu %s\n", number, size, digest);
  return fwrite(body, 1, size, stdout) == size && fflush(stdout) == 0 ? 0 : 1;
}

// The number that the content states, or -1 when it does not describe itself.
static long long Check(const unsigned char* data, long size) {
  unsigned long long number = 0;
  size_t stated = 0;
  char digest[65] = "", head[160];
  const unsigned char* newline = size > 0 ? memchr(data, '\n', (size_t)size) : NULL;
  if (newline == NULL || newline - data >= (long)sizeof(head)) return -1;
  memcpy(head, data, (size_t)(newline - data));
  head[newline - data] = 0;
  if (sscanf(head, "LATCHKEY-TEST %llu %zu %64s", &number, &stated, digest) != 3) return -1;
  const size_t body = (size_t)size - (size_t)(newline - data) - 1;
  char real[65];
  Sha256Hex(newline + 1, body, real);
  return body == stated && strcmp(real, digest) == 0 ? (long long)number : -1;
}

// Reads a descriptor from its start to its end by pread; -errno on failure.
static long ReadAll(int fd, unsigned char* buffer) {
  long total = 0;
  for (;;) {
    const ssize_t n = pread(fd, buffer + total, (size_t)(kMaxBytes - total), total);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) return total;
    total += n;
  }
}

struct Held {
  int fd;
  long size;
  char digest[65];
};

static void CheckHeld(struct Held* held, const char* path, unsigned char* buffer) {
  const long size = ReadAll(held->fd, buffer);
  char digest[65] = "";
  if (size >= 0) Sha256Hex(buffer, (size_t)size, digest);
  if (size != held->size || strcmp(digest, held->digest) != 0) {
    atomic_fetch_add(&held_wrong, 1);
    Remember(first_wrong, size < 0 ? strerror((int)-size) : "the held descriptor changed", path);
  }
}

static long long ReadOnce(const char* path, unsigned char* buffer, long long newest) {
  const long long start = NowUs();
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const int open_errno = errno;
  const long size = fd >= 0 ? ReadAll(fd, buffer) : -open_errno;
  if (fd >= 0) close(fd);
  Raise(&max_read_us, NowUs() - start);
  atomic_fetch_add(&reads, 1);
  if (size < 0) {
    atomic_fetch_add(&errors, 1);
    Remember(first_error, strerror((int)-size), path);
    return newest;
  }
  const long long number = Check(buffer, size);
  if (number < 0) {
    atomic_fetch_add(&wrong, 1);
    Remember(first_wrong, "the content does not describe itself", path);
    return newest;
  }
  Lower(&lowest, number);
  Raise(&highest, number);
  if (number < newest) {
    atomic_fetch_add(&backwards, 1);
    Remember(first_wrong, "an older version after a newer one", path);
    return newest;
  }
  return number;
}

static void* Loop(void* unused) {
  (void)unused;
  unsigned char* buffer = malloc(kMaxBytes);
  if (buffer == NULL) abort();
  long long newest[kMaxPaths] = {0};
  struct Held held[kMaxPaths];
  for (int i = 0; hold && i < path_count; ++i) {
    held[i].fd = open(paths[i], O_RDONLY | O_CLOEXEC);
    held[i].size = held[i].fd < 0 ? -errno : ReadAll(held[i].fd, buffer);
    if (held[i].size < 0) {
      atomic_fetch_add(&errors, 1);
      Remember(first_error, strerror((int)-held[i].size), paths[i]);
      return NULL;
    }
    Sha256Hex(buffer, (size_t)held[i].size, held[i].digest);
  }
  while (!atomic_load(&stop) && (reads_wanted < 0 || atomic_load(&reads) < reads_wanted)) {
    for (int i = 0; i < path_count; ++i) {
      newest[i] = ReadOnce(paths[i], buffer, newest[i]);
      if (hold) CheckHeld(&held[i], paths[i], buffer);
    }
  }
  free(buffer);
  return NULL;
}

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "--make") == 0) {
    return Make(strtoull(argv[2], NULL, 10), (size_t)strtoull(argv[3], NULL, 10));
  }
  int threads = 1;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--loop") == 0) {
      continue;
    } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      threads = (int)strtol(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "--reads") == 0 && i + 1 < argc) {
      reads_wanted = strtoll(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "--hold") == 0) {
      hold = 1;
    } else if (argv[i][0] != '-' && path_count < kMaxPaths) {
      paths[path_count++] = argv[i];
    } else {
      fprintf(stderr, "secret_reader: cannot use \"%s\"\n", argv[i]);
      return 2;
    }
  }
  if (path_count == 0 || threads < 1 || threads > kMaxThreads) return 2;
  signal(SIGTERM, OnSignal);
  signal(SIGINT, OnSignal);
  printf("{\"ready\":true}\n");
  fflush(stdout);
  pthread_t ids[kMaxThreads];
  for (int i = 0; i < threads; ++i) {
    if (pthread_create(&ids[i], NULL, Loop, NULL) != 0) return 1;
  }
  for (int i = 0; i < threads; ++i) pthread_join(ids[i], NULL);
  printf(
      "{\"reads\":%lld,\"errors\":%lld,\"first_error\":\"%s\",\"wrong\":%lld,\"first_wrong\":\"%"
      "s\",\"backwards\":%lld,"
      "\"held_wrong\":%lld,\"lowest\":%lld,\"highest\":%lld,\"max_read_us\":%lld}\n",
      atomic_load(&reads), atomic_load(&errors), first_error, atomic_load(&wrong), first_wrong,
      atomic_load(&backwards), atomic_load(&held_wrong), atomic_load(&lowest),
      atomic_load(&highest), atomic_load(&max_read_us));
  return atomic_load(&reads) > 0 && atomic_load(&errors) + atomic_load(&wrong) +
                                            atomic_load(&backwards) + atomic_load(&held_wrong) ==
                                        0
             ? 0
             : 1;
}
