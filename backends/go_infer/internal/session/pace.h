/* How a load gives way to those who serve, beyond the niceness of its threads.
 *
 * Niceness and scheduling classes say who gets a processor next; a thread inside the kernel gives it up when it returns from there (kernels
 * built for servers do not preempt themselves). TensorFlow reads a variable with one pread of its whole size into memory that was never
 * touched: 50 MB are 28 ms in which everybody who was put on that processor waits. So this program has a pread of its own, to which
 * TensorFlow's calls go, too. It reads at most SG_PIECE bytes, as POSIX allows, and TensorFlow asks again for the rest.
 *
 * And a thread of low priority that got a processor keeps it until the next tick of the clock (4 ms at 250 Hz), if the one that it runs
 * instead of was preempted and not asleep. So a piece is followed by a pause, in which there is nobody to keep it: as long as Runs of
 * requests are made, and until somebody is in a hurry. Pieces that pause are read one at a time, however many threads restore variables.
 */
#ifndef SLUICEGATE_PACE_H
#define SLUICEGATE_PACE_H

#include <stddef.h>
#include <stdint.h>

#define SG_PIECE ((size_t)96 << 10) /* about 75 us, of which most is the kernel's work on fresh pages */

#define SG_IDLE 20 /* the niceness of SCHED_IDLE: whoever wants the processor has it at once */

/* Sets the niceness of a thread (0: the calling one), up to SG_IDLE; -1 if the system refuses. */
int sg_set_niceness(int thread, int nice);

/* A load pauses for so many times as long as it worked, from now on; 0: it does not. */
void sg_set_pauses(double times);
/* A Run of a request begins. */
void sg_served(void);
/* Pauses, if it is to, after so many nanoseconds of work on a load. */
void sg_pause_after(int64_t worked);
/* Begins (1) or ends (-1) a hurry: while there is one no load pauses, and threads of that niceness are given the priority `normal` as
 * far as the system allows; which needs CAP_SYS_NICE or RLIMIT_NICE. The result is 1 if it refused one. */
int sg_hurry(int change, int nice, int normal);
/* Whether there is one. */
int sg_hurried(void);
/* Nanoseconds that loads have paused, and pieces read. */
int64_t sg_paused(void);
int64_t sg_pieces(void);

#endif
