package batch

import "math/bits"

// Bucket is the size a batch of rows is padded to: the next power of two, and at the top the largest batch itself.
// TensorFlow plans a graph anew for every input shape it has not seen, so few sizes, all warmed, beat exact ones.
func Bucket(rows, largest int) int {
	if rows >= largest {
		return rows
	}
	return min(1<<bits.Len(uint(rows-1)), largest)
}

// Buckets are all sizes that Bucket can give for batches up to largest, ascending.
func Buckets(largest int) []int {
	var sizes []int
	for size := 1; size < largest; size *= 2 {
		sizes = append(sizes, size)
	}
	return append(sizes, largest)
}
