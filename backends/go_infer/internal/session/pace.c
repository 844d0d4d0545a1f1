#define _GNU_SOURCE
#include "pace.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define LATELY 1000000000 /* nanoseconds since a Run was seen in which requests are taken to be served */
#define LONGEST 5000000   /* nanoseconds of one pause */

static double pauses;
static int hurries;
static int64_t runs, runs_seen, seen_at, paused, pieces;
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;

static int64_t now(clockid_t clock) {
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

void sg_set_pauses(double times) { __atomic_store(&pauses, &times, __ATOMIC_RELAXED); }
void sg_served(void) { __atomic_add_fetch(&runs, 1, __ATOMIC_RELAXED); }
int sg_hurried(void) { return __atomic_load_n(&hurries, __ATOMIC_RELAXED) > 0; }
int64_t sg_paused(void) { return __atomic_load_n(&paused, __ATOMIC_RELAXED); }
int64_t sg_pieces(void) { return __atomic_load_n(&pieces, __ATOMIC_RELAXED); }

/* Whether a load is to pause: requests are being served, and nobody is in a hurry. */
static int gives_way(void) {
	double times;
	__atomic_load(&pauses, &times, __ATOMIC_RELAXED);
	if (times <= 0 || sg_hurried()) return 0;
	int64_t made = __atomic_load_n(&runs, __ATOMIC_RELAXED), at = now(CLOCK_MONOTONIC);
	if (__atomic_exchange_n(&runs_seen, made, __ATOMIC_RELAXED) != made) __atomic_store_n(&seen_at, at, __ATOMIC_RELAXED);
	int64_t seen = __atomic_load_n(&seen_at, __ATOMIC_RELAXED);
	return seen && at - seen < LATELY;
}

void sg_pause_after(int64_t worked) {
	if (!gives_way()) return;
	double times;
	__atomic_load(&pauses, &times, __ATOMIC_RELAXED);
	double wanted = (double)worked * times;
	int64_t length = wanted < LONGEST ? (int64_t)wanted : LONGEST;
	struct timespec pause = {0, length};
	nanosleep(&pause, NULL); /* a signal may cut it short */
	__atomic_add_fetch(&paused, length, __ATOMIC_RELAXED);
}

static ssize_t read_piece(int fd, void *buffer, size_t count, off_t offset) {
	if (count < SG_PIECE) return syscall(SYS_pread64, fd, buffer, count, offset);
	__atomic_add_fetch(&pieces, 1, __ATOMIC_RELAXED);
	int alone = gives_way();
	if (alone) pthread_mutex_lock(&reading);
	int64_t began = now(CLOCK_THREAD_CPUTIME_ID);
	ssize_t got = syscall(SYS_pread64, fd, buffer, SG_PIECE, offset);
	int failure = errno;
	sg_pause_after(now(CLOCK_THREAD_CPUTIME_ID) - began);
	if (alone) pthread_mutex_unlock(&reading);
	errno = failure;
	return got;
}

/* Instead of the C library's, for TensorFlow too: its calls are bound to the program's symbols first. */
ssize_t pread(int fd, void *buffer, size_t count, off_t offset) { return read_piece(fd, buffer, count, offset); }
ssize_t pread64(int fd, void *buffer, size_t count, off_t offset) { return read_piece(fd, buffer, count, offset); }

/* The niceness of a thread, SG_IDLE for SCHED_IDLE. */
static int niceness(id_t thread) {
	return sched_getscheduler((pid_t)thread) == SCHED_IDLE ? SG_IDLE : getpriority(PRIO_PROCESS, thread);
}

int sg_set_niceness(int thread, int nice) {
	struct sched_param none = {0};
	int policy = nice >= SG_IDLE ? SCHED_IDLE : SCHED_OTHER;
	if (sched_getscheduler(thread) != policy && sched_setscheduler(thread, policy, &none) != 0) return -1;
	return policy == SCHED_IDLE ? 0 : setpriority(PRIO_PROCESS, (id_t)thread, nice);
}

int sg_hurry(int change, int nice, int normal) {
	__atomic_add_fetch(&hurries, change, __ATOMIC_RELAXED);
	if (change < 0 || nice <= normal) return 0;
	DIR *tasks = opendir("/proc/self/task");
	if (!tasks) return 1;
	int refused = 0;
	for (struct dirent *entry; (entry = readdir(tasks));) {
		id_t thread = (id_t)atoi(entry->d_name);
		if (thread && niceness(thread) == nice && sg_set_niceness((int)thread, normal) != 0 && errno != ESRCH) refused = 1;
	}
	closedir(tasks);
	return refused;
}
