package savedmodel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sluicegate/go_infer/internal/wire"
)

// WarmupFile holds requests to be run before a version is published: a TFRecord of PredictionLog.
const WarmupFile = "assets.extra/tf_serving_warmup_requests"

// MostWarmups is how many there may be. Source: TF-Serving's WarmupConsts::kMaxNumRecords.
const MostWarmups = 1000

// largestRecord is that of a gRPC message, generously: a request that large is none.
const largestRecord = 256 << 20

// Warmup is one recorded request, with its tensors still serialized.
type Warmup struct {
	Signature string            // "": the default one
	Inputs    map[string][]byte // alias: TensorProto, of a predict request
	Examples  [][]byte          // tf.Example, of a classify or regress request
}

// Warmups gives each recorded request of a version to run, which may keep nothing of it. There are none without the file. An error,
// run's too, says which record it is about; a wrong checksum is one.
func Warmups(directory string, run func(Warmup) error) error {
	file, err := os.Open(filepath.Join(directory, WarmupFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	for number := 0; ; number++ {
		record, err := nextRecord(file)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && number == MostWarmups {
			return fmt.Errorf("%s: more than %d records", WarmupFile, MostWarmups)
		}
		var warmups []Warmup
		if err == nil {
			warmups, err = readLog(record)
		}
		for i := range warmups {
			if err == nil {
				err = run(warmups[i])
			}
		}
		if err != nil {
			return fmt.Errorf("%s: record %d: %w", WarmupFile, number, err)
		}
	}
}

// nextRecord reads: length (uint64), its masked CRC-32C, the bytes, their masked CRC-32C. Source: TensorFlow's tfrecord guide.
func nextRecord(file io.Reader) ([]byte, error) {
	var head [12]byte
	if _, err := io.ReadFull(file, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("truncated")
		}
		return nil, err
	}
	length := binary.LittleEndian.Uint64(head[:])
	if unmask(binary.LittleEndian.Uint32(head[8:])) != crc32.Checksum(head[:8], castagnoli) {
		return nil, errors.New("the checksum of its length is wrong: not a TFRecord, or corrupted")
	}
	if length > largestRecord {
		return nil, fmt.Errorf("%d bytes; at most %d are read", length, largestRecord)
	}
	content, err := io.ReadAll(io.LimitReader(file, int64(length)+4))
	if err != nil {
		return nil, err
	}
	if uint64(len(content)) < length+4 {
		return nil, errors.New("truncated")
	}
	record := content[:length]
	if unmask(binary.LittleEndian.Uint32(content[length:])) != crc32.Checksum(record, castagnoli) {
		return nil, errors.New("its checksum is wrong: corrupted")
	}
	return record, nil
}

// logs are the kinds of PredictionLog (tensorflow_serving/apis/prediction_log.proto) by their field. A request is field 1 in each.
var logs = map[int]func(request []byte) ([]Warmup, error){2: readExamples, 3: readExamples, 4: readTasks, 6: readPredict}

func readLog(record []byte) (warmups []Warmup, err error) {
	known := false
	err = wire.Fields(record, func(kind int, _ uint64, log []byte) error {
		read := logs[kind]
		if read == nil {
			return nil
		}
		known = true
		return wire.Fields(log, func(number int, _ uint64, request []byte) (err error) {
			if number == 1 {
				warmups, err = read(request)
			}
			return err
		})
	})
	if err == nil && !known {
		err = errors.New("it is no predict, classify, regress or multi-inference log")
	}
	return warmups, err
}

// modelSpec reads ModelSpec: signature_name 3. The model's name and version are those of this model, whatever was recorded.
func modelSpec(message []byte, signature *string) error {
	return wire.Fields(message, func(number int, _ uint64, bytes []byte) error {
		if number == 3 {
			*signature = string(bytes)
		}
		return nil
	})
}

// readPredict reads PredictRequest: model_spec 1, inputs 2 (map<string, TensorProto>).
func readPredict(request []byte) ([]Warmup, error) {
	w := Warmup{Inputs: map[string][]byte{}}
	err := wire.Fields(request, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 1:
			return modelSpec(bytes, &w.Signature)
		case 2:
			var alias string
			var tensor []byte
			err := wire.Fields(bytes, func(number int, _ uint64, bytes []byte) error {
				switch number {
				case 1:
					alias = string(bytes)
				case 2:
					tensor = bytes
				}
				return nil
			})
			w.Inputs[alias] = tensor
			return err
		}
		return nil
	})
	return []Warmup{w}, err
}

// readExamples reads ClassificationRequest and RegressionRequest: model_spec 1, input 2.
func readExamples(request []byte) ([]Warmup, error) {
	w := Warmup{}
	err := wire.Fields(request, func(number int, _ uint64, bytes []byte) (err error) {
		switch number {
		case 1:
			return modelSpec(bytes, &w.Signature)
		case 2:
			w.Examples, err = readInput(bytes)
		}
		return err
	})
	return []Warmup{w}, err
}

// readTasks reads MultiInferenceRequest: tasks 1 { model_spec 1 }, input 2.
func readTasks(request []byte) (warmups []Warmup, err error) {
	var examples [][]byte
	err = wire.Fields(request, func(number int, _ uint64, bytes []byte) (err error) {
		switch number {
		case 1:
			w := Warmup{}
			err = wire.Fields(bytes, func(number int, _ uint64, bytes []byte) error {
				if number == 1 {
					return modelSpec(bytes, &w.Signature)
				}
				return nil
			})
			warmups = append(warmups, w)
		case 2:
			examples, err = readInput(bytes)
		}
		return err
	})
	for i := range warmups {
		warmups[i].Examples = examples
	}
	return warmups, err
}

// readInput reads Input: example_list 1 { examples 1 }, or example_list_with_context 2 { examples 1, context 2 }. Joining two serialized
// messages merges them, so a context is put before each example.
func readInput(input []byte) (examples [][]byte, err error) {
	var context []byte
	err = wire.Fields(input, func(_ int, _ uint64, list []byte) error {
		return wire.Fields(list, func(number int, _ uint64, bytes []byte) error {
			switch number {
			case 1:
				examples = append(examples, bytes)
			case 2:
				context = bytes
			}
			return nil
		})
	})
	if len(context) > 0 {
		for i, example := range examples {
			examples[i] = append(append([]byte(nil), context...), example...)
		}
	}
	return examples, err
}
