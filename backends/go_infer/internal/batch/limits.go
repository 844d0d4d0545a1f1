package batch

import (
	"fmt"
	"math/bits"
	"time"
)

// Limits are the numbers of one batcher. Everything from Sizes on may be left zero.
type Limits struct {
	MaxBatch int  // rows in one Run
	MaxQueue int  // rows that may wait
	Slots    int  // Runs at the same time
	Coalesce bool // false: one request per Run, never split
	Whole    bool // a request larger than a batch is run whole and by itself, and not in parts

	Sizes    []int         // what a batch is padded to, ascending, the last is MaxBatch; nil: the powers of two below it, and itself
	Exact    bool          // true: a batch is run as large as it is, without padding
	MaxBytes int           // bytes of requests that may wait; 0: not bounded
	Delay    time.Duration // for which a free slot waits for a full batch; 0: it takes what is there
	Target   time.Duration // of a Run; batches are made so small that it is kept; 0: none
	Aging    time.Duration // after which a request counts as left behind (see queue); 0: DefaultAging
	Share    *Share        // Run slots that this batcher has in common with others; nil: it has its own
}

// DefaultAging is long against the wait that a bounded queue makes, and short against a client's patience.
const DefaultAging = time.Second

// CheckSizes refuses sizes that cannot be padded to.
func CheckSizes(sizes []int, maxBatch int) error {
	last := 0
	for i, size := range sizes {
		switch {
		case size < 1:
			return fmt.Errorf("size %d is not a number of rows", size)
		case size <= last:
			return fmt.Errorf("size %d comes after %d; sizes must ascend", size, last)
		case i == len(sizes)-1 && size != maxBatch:
			return fmt.Errorf("the last size is %d; it must be the largest batch, %d", size, maxBatch)
		}
		last = size
	}
	return nil
}

// Bucket is the size that a batch of rows is padded to: the next size allowed, by default the next power of two, and at the top the
// largest batch itself. TensorFlow plans a graph anew for every input shape it has not seen, so few sizes, all warmed, beat exact ones.
// What is larger than a batch, and everything if Exact or not Coalesce, is run as it is.
func (l *Limits) Bucket(rows int) int {
	if rows >= l.MaxBatch || l.Exact || !l.Coalesce {
		return rows
	}
	if l.Sizes == nil {
		return min(1<<bits.Len(uint(rows-1)), l.MaxBatch)
	}
	for _, size := range l.Sizes {
		if size >= rows {
			return size
		}
	}
	return rows
}

// Buckets are the sizes that batches have, ascending; of Exact ones those that are worth warming.
func (l *Limits) Buckets() []int {
	if l.Sizes != nil {
		return l.Sizes
	}
	var sizes []int
	for size := 1; size < l.MaxBatch; size *= 2 {
		sizes = append(sizes, size)
	}
	return append(sizes, l.MaxBatch)
}

// within is the most rows that a batch may have under a bound that lies between two sizes: padded, more would cost no less.
func (l *Limits) within(bound int) int {
	if l.Exact || !l.Coalesce || bound >= l.MaxBatch {
		return min(bound, l.MaxBatch)
	}
	sizes := l.Buckets()
	for i := len(sizes) - 1; i > 0; i-- {
		if sizes[i] <= bound {
			return sizes[i]
		}
	}
	return sizes[0]
}
