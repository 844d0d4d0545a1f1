#include "run.h"
#include "pace.h"
#include "strings.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t live_tensors;

static void born(void) { __atomic_add_fetch(&live_tensors, 1, __ATOMIC_RELAXED); }
static void gone(void) { __atomic_sub_fetch(&live_tensors, 1, __ATOMIC_RELAXED); }

int64_t sg_live(void) { return __atomic_load_n(&live_tensors, __ATOMIC_RELAXED); }

void sg_tame_malloc(void) {
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 2);
#endif
	/* With oneDNN, TensorFlow keeps what was freed in an allocator of its own that gives nothing back: an unloaded model's variables
	 * would stay for ever. Asked at the first allocation; whoever has set it knows better. */
	setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1", 0);
}

/* TensorFlow 2.21 chats on stderr through Abseil's logger, from its static initializers on, and TF_CPP_MIN_LOG_LEVEL does not reach
 * that. So the level is set in .preinit_array, which runs before any library's initializers; whoever sets the variable gets the chatter.
 * The symbol is versioned, hence weak: with another TensorFlow the chatter is back and nothing else changes. */
extern void absl_min_log_level(int) __asm__("_ZN4absl12lts_2025081414SetMinLogLevelENS0_18LogSeverityAtLeastE") __attribute__((weak));

static void quiet(int argc, char **argv, char **envp) {
	static const char chatty[] = "TF_CPP_MIN_LOG_LEVEL=";
	(void)argc;
	(void)argv;
	for (; *envp; envp++) {
		if (strncmp(*envp, chatty, sizeof chatty - 1) == 0) return;
	}
	if (absl_min_log_level) absl_min_log_level(2); /* errors and worse */
}

__attribute__((section(".preinit_array"), used)) static void (*before_libraries)(int, char **, char **) = quiet;

void sg_trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

typedef struct {
	void (*work)(void *);
	void *argument;
	int nice;
} sg_errand;

static void *run_errand(void *argument) {
	sg_errand *errand = argument;
	if (!sg_hurried()) sg_set_niceness((int)syscall(SYS_gettid), errand->nice);
	errand->work(errand->argument);
	return NULL;
}

/* Does the work in a thread of that niceness, and returns when it is done; without nice, or if no thread can be had, in this one. */
static void aside(int nice, void (*work)(void *), void *argument) {
	sg_errand errand = {work, argument, nice};
	pthread_t thread;
	if (nice <= 0 || pthread_create(&thread, NULL, run_errand, &errand) != 0) {
		work(argument);
		return;
	}
	pthread_join(thread, NULL);
}

typedef struct {
	const char *directory, *tag;
	const void *config;
	size_t config_bytes;
	sg_loaded *loaded;
} sg_order;

static void load(const char *directory, const char *tag, const void *config, size_t config_bytes, sg_loaded *loaded);

static void load_order(void *argument) {
	sg_order *order = argument;
	load(order->directory, order->tag, order->config, order->config_bytes, order->loaded);
}

void sg_load(const char *directory, const char *tag, const void *config, size_t config_bytes, int nice, sg_loaded *loaded) {
	sg_order order = {directory, tag, config, config_bytes, loaded};
	aside(nice, load_order, &order);
}

static void load(const char *directory, const char *tag, const void *config, size_t config_bytes, sg_loaded *loaded) {
	memset(loaded, 0, sizeof *loaded);
	loaded->status = TF_NewStatus();
	TF_SessionOptions *options = TF_NewSessionOptions();
	TF_SetConfig(options, config, config_bytes, loaded->status);
	if (TF_GetCode(loaded->status) == TF_OK) {
		loaded->graph = TF_NewGraph();
		loaded->meta_graph = TF_NewBuffer();
		loaded->session = TF_LoadSessionFromSavedModel(options, NULL, directory, &tag, 1, loaded->graph, loaded->meta_graph,
		                                               loaded->status);
		if (TF_GetCode(loaded->status) != TF_OK) {
			TF_DeleteGraph(loaded->graph);
			loaded->graph = NULL;
			loaded->session = NULL;
		}
	}
	TF_DeleteSessionOptions(options);
}

void sg_make_pools(const void *config, size_t config_bytes, TF_Status *status) {
	TF_SessionOptions *options = TF_NewSessionOptions();
	TF_SetConfig(options, config, config_bytes, status);
	if (TF_GetCode(status) == TF_OK) {
		TF_Graph *graph = TF_NewGraph();
		TF_Session *session = TF_NewSession(graph, options, status);
		if (session) {
			TF_Status *closing = TF_NewStatus();
			TF_CloseSession(session, closing);
			TF_DeleteSession(session, closing);
			TF_DeleteStatus(closing);
		}
		TF_DeleteGraph(graph);
	}
	TF_DeleteSessionOptions(options);
}

void sg_free_meta(sg_loaded *loaded) {
	if (loaded->meta_graph) TF_DeleteBuffer(loaded->meta_graph);
	if (loaded->status) TF_DeleteStatus(loaded->status);
	loaded->meta_graph = NULL;
	loaded->status = NULL;
}

void sg_unload(TF_Session *session, TF_Graph *graph) {
	TF_Status *status = TF_NewStatus();
	TF_CloseSession(session, status);
	TF_DeleteSession(session, status);
	TF_DeleteGraph(graph);
	TF_DeleteStatus(status);
}

int sg_find(TF_Graph *graph, const char *operation, int index, TF_Output *found) {
	TF_Operation *op = TF_GraphOperationByName(graph, operation);
	if (!op || index < 0 || index >= TF_OperationNumOutputs(op)) return 0;
	found->oper = op;
	found->index = index;
	return 1;
}

sg_call *sg_new_call(TF_Session *session, int inputs, int outputs) {
	sg_call *call = calloc(1, sizeof *call);
	call->session = session;
	call->status = TF_NewStatus();
	call->inputs = inputs;
	call->outputs = outputs;
	call->feeds = calloc((size_t)inputs + 1, sizeof *call->feeds);
	call->fetches = calloc((size_t)outputs + 1, sizeof *call->fetches);
	call->in = calloc((size_t)inputs + 1, sizeof *call->in);
	call->out = calloc((size_t)outputs + 1, sizeof *call->out);
	call->places = calloc((size_t)outputs + 1, sizeof *call->places);
	call->fed = calloc((size_t)inputs + 1, sizeof *call->fed);
	call->fetched = calloc((size_t)outputs + 1, sizeof *call->fetched);
	call->packed = calloc((size_t)outputs + 1, sizeof *call->packed);
	return call;
}

void sg_free_call(sg_call *call) {
	sg_release(call);
	TF_DeleteStatus(call->status);
	free(call->feeds);
	free(call->fetches);
	free(call->in);
	free(call->out);
	free(call->places);
	free(call->fed);
	free(call->fetched);
	free(call->packed);
	free(call);
}

/* The memory belongs to a slab of the caller; TensorFlow only tells us that it has let go of it. */
static void let_go(void *data, size_t bytes, void *argument) {
	(void)data;
	(void)bytes;
	(void)argument;
	gone();
}

static void drop_output(sg_call *call, int i) {
	if (call->fetched[i]) {
		TF_DeleteTensor(call->fetched[i]);
		call->fetched[i] = NULL;
		gone();
	}
	if (call->packed[i]) {
		free(call->packed[i]);
		call->packed[i] = NULL;
		gone();
	}
}

/* Packs string output i into its place, or else into memory of its own, which is held. 0 if there is none to be had. */
static int land_strings(sg_call *call, int i) {
	TF_Tensor *tensor = call->fetched[i];
	sg_value *value = &call->out[i];
	const sg_place *place = &call->places[i];
	value->bytes = sg_packed_size(tensor);
	if (place->memory && value->bytes <= place->room) {
		value->data = place->memory;
	} else {
		value->data = call->packed[i] = malloc(value->bytes + 1);
		if (!value->data) return 0;
		born();
		call->held++;
	}
	sg_pack(tensor, value->data);
	TF_DeleteTensor(tensor);
	call->fetched[i] = NULL;
	gone();
	return 1;
}

/* Describes output i, and moves it to its place if it has one that is large enough. 0 if there is no memory for it. */
static int land(sg_call *call, int i) {
	TF_Tensor *tensor = call->fetched[i];
	sg_value *value = &call->out[i];
	const sg_place *place = &call->places[i];
	value->type = TF_TensorType(tensor);
	value->rank = TF_NumDims(tensor);
	for (int d = 0; d < value->rank && d < SG_MAX_RANK; d++) value->dims[d] = TF_Dim(tensor, d);
	if (value->type == TF_STRING) return land_strings(call, i);
	value->data = TF_TensorData(tensor);
	value->bytes = TF_TensorByteSize(tensor);
	if (!place->memory || value->bytes > place->room) {
		call->held++;
		return 1;
	}
	if (value->bytes) memcpy(place->memory, value->data, value->bytes);
	value->data = place->memory;
	drop_output(call, i);
	return 1;
}

/* Makes input i a tensor; 0 if there is no memory for it. */
static int feed(sg_call *call, int i) {
	const sg_value *value = &call->in[i];
	size_t count = 1;
	if (value->type == TF_STRING) {
		for (int d = 0; d < value->rank; d++) count *= (size_t)value->dims[d];
		call->fed[i] = sg_new_strings(value->dims, value->rank, count, value->data, gone);
	} else {
		call->fed[i] = TF_NewTensor(value->type, value->dims, value->rank, value->data, value->bytes, let_go, NULL);
	}
	if (call->fed[i]) born();
	return call->fed[i] != NULL;
}

static int no_memory(sg_call *call) {
	TF_SetStatus(call->status, TF_RESOURCE_EXHAUSTED, "out of memory for a tensor of strings");
	return TF_RESOURCE_EXHAUSTED;
}

static int run(sg_call *call) {
	int code = TF_OK;
	call->held = 0;
	for (int i = 0; i < call->inputs && code == TF_OK; i++) {
		if (!feed(call, i)) code = no_memory(call);
	}
	if (code == TF_OK) {
		TF_SessionRun(call->session, NULL, call->feeds, call->fed, call->inputs, call->fetches, call->fetched, call->outputs, NULL, 0,
		              NULL, call->status);
		code = TF_GetCode(call->status);
	}
	for (int i = 0; i < call->inputs; i++) {
		if (call->fed[i]) TF_DeleteTensor(call->fed[i]);
		call->fed[i] = NULL;
	}
	for (int i = 0; i < call->outputs; i++) {
		if (!call->fetched[i]) continue; /* a failed Run returns none, or those before the one that it could not return */
		born();
		if (code == TF_OK && !land(call, i)) code = no_memory(call);
	}
	if (code != TF_OK) sg_release(call);
	return code;
}

int sg_run(sg_call *call) {
	sg_served();
	return run(call);
}

static void run_call(void *call) { run(call); }

int sg_run_aside(sg_call *call, int nice) {
	aside(nice, run_call, call);
	return TF_GetCode(call->status);
}

void sg_release(sg_call *call) {
	for (int i = 0; i < call->outputs; i++) drop_output(call, i);
	call->held = 0;
}
