package modelconfig

import (
	"fmt"
	"os"
	"time"

	"sluicegate/go_infer/internal/batch"
)

// Batching is a batching parameters file as TensorFlow Serving reads it. What the file does not say is nil.
// Source: BatchingParameters in tensorflow_serving/servables/tensorflow/session_bundle_config.proto.
type Batching struct {
	MaxBatch *int           // rows in one Run: max_execution_batch_size, or else max_batch_size
	Timeout  *time.Duration // batch_timeout_micros
	Enqueued *int           // batches that may wait: max_enqueued_batches
	Threads  *int           // Runs at the same time: num_batch_threads
	Sizes    []int          // allowed_batch_sizes
}

// The bounds of what a file may say; those of the flags of the same meaning.
const (
	MostRows    = 4096
	MostTimeout = 10 * time.Second
	MostQueued  = 1 << 24
	MostThreads = 256
)

// ReadBatching reads and checks a batching parameters file.
func ReadBatching(file string) (*Batching, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("batching parameters file: %w", err)
	}
	return parseBatching(file, string(text))
}

func parseBatching(file, text string) (*Batching, error) {
	s := source{file}
	nodes, err := parse(file, text)
	if err != nil {
		return nil, err
	}
	var size, execution, micros, enqueued, threads *int64
	var pad bool
	b := &Batching{}
	var sizes []*node
	err = s.visit("the batching parameters", nodes, "allowed_batch_sizes", map[string]check{
		"max_batch_size":           s.wrapped(&size, 1, MostRows),
		"max_execution_batch_size": s.wrapped(&execution, 1, MostRows),
		"batch_timeout_micros":     s.wrapped(&micros, 0, MostTimeout.Microseconds()),
		"max_enqueued_batches":     s.wrapped(&enqueued, 1, MostQueued),
		"num_batch_threads":        s.wrapped(&threads, 1, MostThreads),
		"allowed_batch_sizes": func(n *node) error {
			var value int64
			err := s.number(&value, 1, MostRows)(n)
			b.Sizes, sizes = append(b.Sizes, int(value)), append(sizes, n)
			return err
		},
		"thread_pool_name":             s.inside(func(*node) error { return nil }), // a name for TF-Serving's own logs
		"enable_large_batch_splitting": s.inside(s.splitting),
		"pad_variable_length_inputs":   s.boolean(&pad),
	})
	if err != nil {
		return nil, err
	}
	if pad {
		return nil, s.fail(named(nodes, "pad_variable_length_inputs"), "pad_variable_length_inputs is not served: rows of different "+
			"shapes are never put into one batch here; pad them in the client, or remove it")
	}
	b.MaxBatch, b.Enqueued, b.Threads = whole(size), whole(enqueued), whole(threads)
	if execution != nil {
		if size != nil && *execution > *size {
			return nil, s.fail(named(nodes, "max_execution_batch_size"), "max_execution_batch_size is %d, more than max_batch_size, %d",
				*execution, *size)
		}
		b.MaxBatch = whole(execution)
	}
	if micros != nil {
		timeout := time.Duration(*micros) * time.Microsecond
		b.Timeout = &timeout
	}
	if b.Sizes != nil && b.MaxBatch == nil {
		return nil, s.fail(sizes[0], "allowed_batch_sizes need a max_batch_size, which the last of them must equal")
	}
	for i := range b.Sizes {
		largest := *b.MaxBatch
		if i < len(b.Sizes)-1 {
			largest = b.Sizes[i]
		}
		if err := batch.CheckSizes(b.Sizes[:i+1], largest); err != nil {
			return nil, s.fail(sizes[i], "allowed_batch_sizes: %v", err)
		}
	}
	return b, nil
}

// wrapped reads a google.protobuf.Int64Value: name { value: 1 }.
func (s source) wrapped(into **int64, low, high int64) check {
	return s.inside(func(n *node) error {
		value := int64(0) // what an empty message means
		err := s.visit(n.name, n.children, "", map[string]check{"value": s.number(&value, low, high)})
		if err == nil && (value < low || value > high) {
			err = s.fail(n, "%s is %d; it must be %d..%d", n.name, value, low, high)
		}
		*into = &value
		return err
	})
}

// splitting refuses enable_large_batch_splitting { value: false }: a large request is always divided here.
func (s source) splitting(n *node) error {
	var on bool
	err := s.visit(n.name, n.children, "", map[string]check{"value": s.boolean(&on)})
	if err == nil && !on {
		err = s.fail(n, "enable_large_batch_splitting cannot be false: a request larger than a batch is always divided; remove it")
	}
	return err
}

func named(nodes []node, name string) *node {
	for i := range nodes {
		if nodes[i].name == name {
			return &nodes[i]
		}
	}
	return nil
}

func whole(value *int64) *int {
	if value == nil {
		return nil
	}
	n := int(*value)
	return &n
}
