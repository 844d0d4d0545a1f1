package modelconfig

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestBatchingParametersAreReadAsTFServingReadsThem(t *testing.T) {
	for text, want := range map[string]string{
		"": `{"MaxBatch":null,"Timeout":null,"Enqueued":null,"Threads":null,"Sizes":null}`,
		`# as in TF-Serving's guide
max_batch_size { value: 128 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 1000000 }
num_batch_threads { value: 8 }
thread_pool_name { value: "batch" }
pad_variable_length_inputs: false
`: `{"MaxBatch":128,"Timeout":0,"Enqueued":1000000,"Threads":8,"Sizes":null}`,
		`max_batch_size: {value: 32} allowed_batch_sizes: 8 allowed_batch_sizes: 32 batch_timeout_micros < value: 1500 >`: `{"MaxBatch":32,"Timeout":1500000,"Enqueued":null,"Threads":null,"Sizes":[8,32]}`,
		`max_batch_size { value: 32 } allowed_batch_sizes: [1, 4, 32] enable_large_batch_splitting { value: true }`:       `{"MaxBatch":32,"Timeout":null,"Enqueued":null,"Threads":null,"Sizes":[1,4,32]}`,
		`max_batch_size { value: 1000 } max_execution_batch_size { value: 64 } allowed_batch_sizes: 64`:                   `{"MaxBatch":64,"Timeout":null,"Enqueued":null,"Threads":null,"Sizes":[64]}`,
	} {
		file := filepath.Join(t.TempDir(), "batching.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := ReadBatching(file)
		got, _ := json.Marshal(b)
		if err != nil || string(got) != want {
			t.Errorf("%s\ngot %s, %v\nwant %s", text, got, err, want)
		}
	}
}

func TestMistakesInBatchingParametersAreToldWithTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"max_batch_size: 32":                                                          "b.txt:1:1: max_batch_size must be a message, as in max_batch_size { ... }",
		"max_batch_size { value: 32\n":                                                "b.txt:2:1: max_batch_size, opened at 1:1, is not closed with '}'",
		"\n  max_batch { value: 32 }":                                                 `b.txt:2:3: the batching parameters has no field "max_batch"; it has allowed_batch_sizes, batch_timeout_micros, enable_large_batch_splitting, max_batch_size, max_enqueued_batches, max_execution_batch_size, num_batch_threads, pad_variable_length_inputs, thread_pool_name`,
		"max_batch_size { value: 0 }":                                                 "b.txt:1:18: value is 0; it must be 1..4096",
		"max_batch_size { value: 4097 }":                                              "b.txt:1:18: value is 4097; it must be 1..4096",
		"max_batch_size { }":                                                          "b.txt:1:1: max_batch_size is 0; it must be 1..4096",
		"max_batch_size { value: x }":                                                 "b.txt:1:18: value must be a whole number",
		"max_batch_size { value: 1 }\nmax_batch_size { value: 2 }":                    "b.txt:2:1: max_batch_size is given twice; the first is at 1:1",
		"batch_timeout_micros { value: -1 }":                                          "b.txt:1:24: value is -1; it must be 0..10000000",
		"batch_timeout_micros { value: 10000001 }":                                    "b.txt:1:24: value is 10000001; it must be 0..10000000",
		"max_enqueued_batches { value: 16777217 }":                                    "b.txt:1:24: value is 16777217; it must be 1..16777216",
		"num_batch_threads { value: 257 }":                                            "b.txt:1:21: value is 257; it must be 1..256",
		"pad_variable_length_inputs: true":                                            "b.txt:1:1: pad_variable_length_inputs is not served: rows of different shapes are never put into one batch here; pad them in the client, or remove it",
		"enable_large_batch_splitting { value: false }":                               "b.txt:1:1: enable_large_batch_splitting cannot be false: a request larger than a batch is always divided; remove it",
		"allowed_batch_sizes: 8":                                                      "b.txt:1:1: allowed_batch_sizes need a max_batch_size, which the last of them must equal",
		"max_batch_size { value: 8 }\nallowed_batch_sizes: 4\nallowed_batch_sizes: 2": "b.txt:3:1: allowed_batch_sizes: size 2 comes after 4; sizes must ascend",
		"max_batch_size { value: 8 }\nallowed_batch_sizes: 4":                         "b.txt:2:1: allowed_batch_sizes: the last size is 4; it must be the largest batch, 8",
		"max_batch_size { value: 8 }\nallowed_batch_sizes: [4, 16]":                   "b.txt:2:1: allowed_batch_sizes: the last size is 16; it must be the largest batch, 8",
		"max_batch_size { value: 8 }\nmax_execution_batch_size { value: 9 }":          "b.txt:2:1: max_execution_batch_size is 9, more than max_batch_size, 8",
		"max_batch_size { value: 8 } }":                                               "b.txt:1:29: '}' closes nothing",
	} {
		_, err := parseBatching("b.txt", text)
		if err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	if _, err := ReadBatching(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a file that does not exist was read")
	}
}
