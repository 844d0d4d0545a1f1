#define _GNU_SOURCE
#include "pace.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LARGE ((size_t)64 << 10) /* bytes from which memory is given back in pieces */
#define RELEASED ((size_t)1 << 20) /* bytes of a piece: 256 pages, some 40 us */

#ifdef __GLIBC__
/* TensorFlow frees a variable with one free, which is one munmap: 50 MB are 12,800 pages that the kernel takes back without letting go of
 * the processor. So this program has a free of its own, which all calls but the C library's are bound to. In a thread that unloads a model
 * it gives the pages of what is large back by itself, in pieces with pauses (pace.h); what is left to unmap has none. */
extern void __libc_free(void *memory);

static __thread int unloading;
static int64_t released;

static void release(char *memory, size_t size) {
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *end = (char *)((size_t)(memory + size) & ~(page - 1));
	memory = (char *)(((size_t)memory + page - 1) & ~(page - 1)); /* what goes before is the allocator's */
	while (memory < end) {
		size_t piece = (size_t)(end - memory) < RELEASED ? (size_t)(end - memory) : RELEASED;
		struct timespec began, ended;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
		if (madvise(memory, piece, MADV_DONTNEED) != 0) return; /* locked memory, for instance: free does what it can */
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
		memory += piece;
		__atomic_add_fetch(&released, 1, __ATOMIC_RELAXED);
		sg_pause_after((ended.tv_sec - began.tv_sec) * 1000000000LL + ended.tv_nsec - began.tv_nsec);
	}
}

void free(void *memory) {
	if (__builtin_expect(unloading, 0) && memory) {
		size_t size = malloc_usable_size(memory);
		int failure = errno; /* free leaves it as it is */
		if (size >= LARGE) release(memory, size);
		errno = failure;
	}
	__libc_free(memory);
}

void sg_unloading(int whether) { unloading = whether; }
int64_t sg_released(void) { return __atomic_load_n(&released, __ATOMIC_RELAXED); }
#else
int64_t sg_released(void) { return 0; }
void sg_unloading(int whether) { (void)whether; }
#endif
