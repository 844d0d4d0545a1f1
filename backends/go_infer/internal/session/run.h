/* One TensorFlow call, prepared once and run many times.
 *
 * Everything that crosses from Go to C lives in this C struct, so that a Run is one cgo call with one pointer: no Go memory is
 * handed to C, nothing is allocated by Go, and cgo's pointer checks have nothing to look at.
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

typedef struct {
	TF_Session *session;
	TF_Status *status;
	int inputs, outputs;
	TF_Output *feeds, *fetches;   /* [inputs], [outputs] */
	sg_value *in, *out;           /* [inputs] filled by the caller, [outputs] by sg_run */
	TF_Tensor **fed, **fetched;   /* [inputs], [outputs]; fetched is valid until sg_release */
} sg_call;

typedef struct {
	TF_Session *session;
	TF_Graph *graph;
	TF_Buffer *meta_graph;        /* serialized MetaGraphDef; freed by sg_free_meta */
	TF_Status *status;            /* always set; message belongs to it */
} sg_loaded;

/* Tensors alive: made by sg_run or returned by TensorFlow and not yet released. */
int64_t sg_live(void);

/* Bounds what the C library's allocator keeps per thread; to be called before TensorFlow makes threads. */
void sg_tame_malloc(void);
/* Gives freed memory back to the system. */
void sg_trim(void);

void sg_load(const char *directory, const char *tag, const void *config, size_t config_bytes, sg_loaded *loaded);
void sg_free_meta(sg_loaded *loaded);
void sg_unload(TF_Session *session, TF_Graph *graph);

/* 1 and *found set if the graph has `operation` with more than `index` outputs, else 0. */
int sg_find(TF_Graph *graph, const char *operation, int index, TF_Output *found);

sg_call *sg_new_call(TF_Session *session, int inputs, int outputs);
void sg_free_call(sg_call *call);

/* Runs the call; returns the TF_Code. On 0 call->out describes the outputs in TensorFlow's memory until sg_release. */
int sg_run(sg_call *call);
void sg_release(sg_call *call);

#endif
