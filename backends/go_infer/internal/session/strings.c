#include "strings.h"

#include <stdlib.h>
#include <string.h>
#include "tensorflow/c/tf_tstring.h"

static void let_go_of_strings(void *data, size_t bytes, void *freed) {
	TF_TString *strings = data;
	for (size_t i = 0; i < bytes / sizeof *strings; i++) TF_StringDealloc(&strings[i]);
	free(strings);
	((void (*)(void))freed)();
}

TF_Tensor *sg_new_strings(const int64_t *dims, int rank, size_t count, const void *packed, void (*freed)(void)) {
	const uint64_t *ends = packed;
	const char *content = (const char *)(ends + count);
	uint64_t begin = 0;
	void *memory = NULL;
	TF_TString *strings;
	if (posix_memalign(&memory, 64, (count + 1) * sizeof *strings) != 0) return NULL;
	strings = memory;
	for (size_t i = 0; i < count; i++) {
		TF_StringInit(&strings[i]);
		TF_StringCopy(&strings[i], content + begin, ends[i] - begin);
		begin = ends[i];
	}
	return TF_NewTensor(TF_STRING, dims, rank, strings, count * sizeof *strings, let_go_of_strings, (void *)freed);
}

static size_t count_of(const TF_Tensor *tensor) { return (size_t)TF_TensorElementCount(tensor); }

size_t sg_packed_size(const TF_Tensor *tensor) {
	const TF_TString *strings = TF_TensorData(tensor);
	size_t count = count_of(tensor), bytes = count * sizeof(uint64_t);
	for (size_t i = 0; i < count; i++) bytes += TF_StringGetSize(&strings[i]);
	return bytes;
}

void sg_pack(const TF_Tensor *tensor, void *packed) {
	const TF_TString *strings = TF_TensorData(tensor);
	size_t count = count_of(tensor);
	uint64_t *ends = packed, end = 0;
	char *content = (char *)(ends + count);
	for (size_t i = 0; i < count; i++) {
		size_t size = TF_StringGetSize(&strings[i]);
		if (size) memcpy(content + end, TF_StringGetDataPointer(&strings[i]), size);
		ends[i] = end += size;
	}
}
