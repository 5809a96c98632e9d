// What the machine takes to let two processes wake each other on two processors, there and back: each request to a mount or a
// server pays it once or more, whatever the program does. A virtual machine whose idle processors leave it takes ten times a
// real one. Median of batches. Prints {"same_cpu_us":..,"two_cpus_us":..}; two_cpus_us is 0 with one processor.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kBatches = 21, kRoundTrips = 500 };

static void Die(const char* what) {
  perror(what);
  exit(1);
}

static void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) Die("wakeups: sched_setaffinity");
}

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int Compare(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

// Passes a byte on until its end of the pipe is closed.
static void Echo(int in, int out) {
  char byte;
  while (read(in, &byte, 1) == 1) {
    if (write(out, &byte, 1) != 1) _exit(1);
  }
  _exit(0);
}

static double RoundTripUs(int own_cpu, int other_cpu) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) Die("wakeups: pipe");
  const pid_t other = fork();
  if (other < 0) Die("wakeups: fork");
  if (other == 0) {
    close(there[1]);
    close(back[0]);
    Pin(other_cpu);
    Echo(there[0], back[1]);
  }
  close(there[0]);
  close(back[1]);
  Pin(own_cpu);
  double us[kBatches];
  char byte = 1;
  for (int batch = 0; batch < kBatches; ++batch) {
    const double start = Now();
    for (int i = 0; i < kRoundTrips; ++i) {
      if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
        Die("wakeups: the other process is gone");
    }
    us[batch] = (Now() - start) / kRoundTrips;
  }
  close(there[1]);
  close(back[0]);
  waitpid(other, NULL, 0);
  qsort(us, kBatches, sizeof us[0], Compare);
  return us[kBatches / 2];
}

int main(void) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) Die("wakeups: sched_getaffinity");
  int cpus[2], count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus[count++] = cpu;
  }
  const double same = RoundTripUs(cpus[0], cpus[0]);
  printf("{\"same_cpu_us\":%.2f,\"two_cpus_us\":%.2f}\n", same,
         count == 2 ? RoundTripUs(cpus[0], cpus[1]) : 0);
  return 0;
}
