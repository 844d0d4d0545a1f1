/* One TensorFlow call, prepared once and run many times.
 *
 * Everything that crosses from Go to C lives in this C struct, so that a Run is one cgo call with one pointer: no Go memory is
 * handed to C, nothing is allocated by Go, and cgo's pointer checks have nothing to look at.
 *
 * Who owns what: inputs and places for outputs are the caller's memory, and C has let go of both when sg_run returns. TensorFlow's
 * own tensors are deleted inside sg_run, except an output that has no place or does not fit into it: that one is *held*, to be read
 * where it lies, until sg_release. So a Run is one call where the caller knows how large the outputs are, and two where not.
 * A tensor of strings is packed memory on this side of the call (strings.h), going in and coming out.
 */
#ifndef SLUICEGATE_RUN_H
#define SLUICEGATE_RUN_H

#include <stddef.h>
#include <stdint.h>
#include "tensorflow/c/c_api.h"

#define SG_MAX_RANK 8

typedef struct {
	TF_DataType type;
	int rank;
	int64_t dims[SG_MAX_RANK];
	void *data;
	size_t bytes;
} sg_value;

/* Where an output shall land. NULL: nowhere, it is held. */
typedef struct {
	void *memory;
	size_t room;
} sg_place;

typedef struct {
	TF_Session *session;
	TF_Status *status;
	int inputs, outputs;
	TF_Output *feeds, *fetches;   /* [inputs], [outputs] */
	sg_value *in, *out;           /* [inputs] filled by the caller, [outputs] by sg_run */
	sg_place *places;             /* [outputs] filled by the caller */
	int held;                     /* outputs that wait for sg_release; set by sg_run */
	TF_Tensor **fed, **fetched;   /* [inputs], [outputs]; between calls only held ones are not NULL */
	void **packed;                /* [outputs] strings that are held */
} sg_call;

typedef struct {
	TF_Session *session;
	TF_Graph *graph;
	TF_Buffer *meta_graph;        /* serialized MetaGraphDef; freed by sg_free_meta */
	TF_Status *status;            /* always set; message belongs to it */
} sg_loaded;

/* Tensors alive: made by sg_run or returned by TensorFlow and not yet deleted. */
int64_t sg_live(void);

/* Bounds what the C library's allocator keeps per thread, and has TensorFlow use it; to be called before TensorFlow makes threads. */
void sg_tame_malloc(void);
/* Gives freed memory back to the system. */
void sg_trim(void);

/* Makes and frees a session of nothing, so that TensorFlow's own threads exist. */
void sg_make_pools(const void *config, size_t config_bytes, TF_Status *status);

/* What gives way to serving by `nice` (> 0) runs in a thread of its own of that niceness, and so do the threads that TensorFlow makes
 * there: on Linux niceness belongs to a thread and is inherited. The calling thread, which is Go's, only waits: a Go thread of low
 * priority would keep a processor of Go's scheduler while it gets no CPU, and hold up every garbage collection. */
void sg_load(const char *directory, const char *tag, const void *config, size_t config_bytes, int nice, sg_loaded *loaded);
void sg_free_meta(sg_loaded *loaded);
void sg_unload(TF_Session *session, TF_Graph *graph);

/* 1 and *found set if the graph has `operation` with more than `index` outputs, else 0. */
int sg_find(TF_Graph *graph, const char *operation, int index, TF_Output *found);

sg_call *sg_new_call(TF_Session *session, int inputs, int outputs);
void sg_free_call(sg_call *call);

/* Runs the call; returns the TF_Code. On 0 call->out describes the outputs: out[i].data is places[i].memory, or TensorFlow's memory
 * until sg_release if it is held. On any other code nothing is held. */
int sg_run(sg_call *call);
/* sg_run, giving way by `nice`. */
int sg_run_aside(sg_call *call, int nice);
/* Deletes what is held; needed only if call->held is not 0. */
void sg_release(sg_call *call);

#endif
