/* Strings of TensorFlow made from and turned into packed memory (package tensor, packed.go: n ends as uint64, then the bytes).
 *
 * A string that goes in is a copy that TensorFlow's tensor owns, not a view: an operation may keep it (a table, a queue) long after
 * the Run, and a copy of a view is a view. Up to 22 bytes that costs no allocation.
 */
#ifndef SLUICEGATE_STRINGS_H
#define SLUICEGATE_STRINGS_H

#include <stddef.h>
#include <stdint.h>
#include "tensorflow/c/c_api.h"

/* A string tensor of `count` packed strings, or NULL if there is no memory. `freed` is called once, when TensorFlow lets go of it. */
TF_Tensor *sg_new_strings(const int64_t *dims, int rank, size_t count, const void *packed, void (*freed)(void));
/* How much packed memory the string tensor needs. */
size_t sg_packed_size(const TF_Tensor *tensor);
/* Packs the string tensor into memory of that size, aligned to 8. */
void sg_pack(const TF_Tensor *tensor, void *packed);

#endif
