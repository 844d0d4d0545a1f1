package model

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
	"sluicegate/go_infer/internal/wire"
)

// TensorInfo is one input or output of a signature.
type TensorInfo struct {
	Alias string // what clients call it
	Name  string // what the graph calls it
	Type  tensor.DType
	Dims  []int64 // -1: any
	Known bool    // false: any rank
}

// Shape prints the declared shape as TF-Serving does.
func (t *TensorInfo) Shape() string { return tensor.ShapeText(t.Dims, t.Known) }

// stringRoom is how much is reserved for an output string with its offset: most names and labels are shorter, and what does not fit
// costs the Run a second C call.
const stringRoom = 40

// Room is the bytes to reserve for a tensor whose first dimension, if that is free, is rows: what it takes, or for strings what it
// probably takes. False if the signature leaves more than the rows open.
func (t *TensorInfo) Room(rows int) (int, bool) {
	size := t.Type.Size()
	if t.Type == tensor.String {
		size = stringRoom
	}
	if !t.Known || size == 0 {
		return 0, false
	}
	for d, dim := range t.Dims {
		if d == 0 && dim < 0 {
			dim = int64(rows)
		}
		if dim < 0 || dim > math.MaxInt32 || size > math.MaxInt/math.MaxInt32 {
			return 0, false
		}
		size *= int(dim)
	}
	return size, true
}

// Signature is a named way to call the graph. Inputs and outputs are sorted by alias.
type Signature struct {
	Name    string
	Method  string
	Inputs  []TensorInfo
	Outputs []TensorInfo

	// Apart is why requests never share a Run, nor are padded or divided, though the shapes would allow it; empty: they do. Set by Load.
	Apart string

	// Changes is an operation with which a Run changes what later ones find: it is run for requests only. Empty: none. Set by Load.
	Changes string

	MaxRows   int // of one request; 0: not bounded
	MaxAnswer int // bytes of one answer; 0: not bounded
}

// CheckRows refuses more rows than one request may have.
func (s *Signature) CheckRows(rows int64) error {
	if s.MaxRows == 0 || rows <= int64(s.MaxRows) {
		return nil
	}
	return status.Errorf(status.InvalidArgument, "the request has %d rows, more than the %d that --max_rows allows; send several requests", rows, s.MaxRows)
}

// CheckAnswer refuses more bytes than one answer may have.
func (s *Signature) CheckAnswer(bytes int) error {
	if s.MaxAnswer == 0 || bytes <= s.MaxAnswer {
		return nil
	}
	return status.Errorf(status.InvalidArgument, "the answer has more than the %d bytes that --max_answer allows; ask for fewer rows", s.MaxAnswer)
}

// Small says that the outputs of so many rows take at most so many bytes. If that cannot be known it is false.
func (s *Signature) Small(rows, most int) bool {
	sum := 0
	for i := range s.Outputs {
		room, known := s.Outputs[i].Room(rows)
		if sum += room; !known || s.Outputs[i].Type == tensor.String || sum > most {
			return false
		}
	}
	return true
}

// DefaultSignature is used when a request names none.
const DefaultSignature = "serving_default"

// Batchable says whether rows of different requests may share a Run: the shapes allow it and nothing else forbids it.
func (s *Signature) Batchable() bool { return s.Apart == "" && s.Rowwise() }

// Open says whether the size of an output's row is left open, so that it may depend on what is in the rows.
func (s *Signature) Open() bool {
	return slices.ContainsFunc(s.Outputs, func(info TensorInfo) bool {
		return !info.Known || len(info.Dims) > 0 && slices.ContainsFunc(info.Dims[1:], func(dim int64) bool { return dim < 0 })
	})
}

// Rowwise says whether the shapes are those of rows: every tensor has a free first dimension, and every other dimension of the inputs
// is fixed, so that rows of any two requests fit together.
func (s *Signature) Rowwise() bool {
	free := func(info *TensorInfo) bool { return info.Known && len(info.Dims) > 0 && info.Dims[0] < 0 }
	for i := range s.Inputs {
		info := &s.Inputs[i]
		if !free(info) {
			return false
		}
		for _, dim := range info.Dims[1:] {
			if dim < 0 {
				return false
			}
		}
	}
	for i := range s.Outputs {
		if !free(&s.Outputs[i]) {
			return false
		}
	}
	return len(s.Inputs) > 0
}

// names are what the graph calls tensors.
func names(infos []TensorInfo) (all []string) {
	for i := range infos {
		all = append(all, infos[i].Name)
	}
	return all
}

// Input is the position of an input by its alias, -1 if there is none.
func (s *Signature) Input(alias string) int { return index(s.Inputs, alias) }

// Output is the position of an output by its alias, -1 if there is none.
func (s *Signature) Output(alias string) int { return index(s.Outputs, alias) }

func index(infos []TensorInfo, alias string) int {
	return slices.IndexFunc(infos, func(info TensorInfo) bool { return info.Alias == alias })
}

// unservable says which tensor this server cannot move, and why; empty: it can move all.
func (s *Signature) unservable() string {
	for _, side := range [][]TensorInfo{s.Inputs, s.Outputs} {
		for i := range side {
			switch info := &side[i]; {
			case !info.Type.Moved() || info.Name == "":
				return fmt.Sprintf("tensor %q is %v", info.Alias, info.Type)
			case len(info.Dims) > session.MaxRank:
				return tooManyDimensions(info, len(info.Dims))
			}
		}
	}
	return ""
}

func tooManyDimensions(info *TensorInfo, rank int) string {
	return fmt.Sprintf("tensor %q has %d dimensions; at most %d are served", info.Alias, rank, session.MaxRank)
}

// signatures reads MetaGraphDef.signature_def (field 5: map<string, SignatureDef>).
func signatures(metaGraph []byte) (map[string]*Signature, error) {
	found := map[string]*Signature{}
	err := wire.Fields(metaGraph, func(number int, _ uint64, entry []byte) error {
		if number != 5 {
			return nil
		}
		signature := &Signature{}
		if err := mapEntry(entry, &signature.Name, signature.parse); err != nil {
			return err
		}
		found[signature.Name] = signature
		return nil
	})
	return found, err
}

// mapEntry reads a protobuf map entry: key is field 1, value is field 2.
func mapEntry(entry []byte, key *string, value func([]byte) error) error {
	return wire.Fields(entry, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 1:
			*key = string(bytes)
		case 2:
			return value(bytes)
		}
		return nil
	})
}

// parse reads SignatureDef: inputs 1, outputs 2 (both map<string, TensorInfo>), method_name 3.
func (s *Signature) parse(message []byte) error {
	err := wire.Fields(message, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 1, 2:
			info := TensorInfo{}
			if err := mapEntry(bytes, &info.Alias, info.parse); err != nil {
				return err
			}
			if number == 1 {
				s.Inputs = append(s.Inputs, info)
			} else {
				s.Outputs = append(s.Outputs, info)
			}
		case 3:
			s.Method = string(bytes)
		}
		return nil
	})
	byAlias := func(a, b TensorInfo) int { return strings.Compare(a.Alias, b.Alias) }
	slices.SortFunc(s.Inputs, byAlias)
	slices.SortFunc(s.Outputs, byAlias)
	return err
}

// parse reads TensorInfo: name 1, dtype 2, tensor_shape 3. A sparse or composite tensor has no name and is refused later.
func (t *TensorInfo) parse(message []byte) error {
	t.Known = true
	return wire.Fields(message, func(number int, value uint64, bytes []byte) error {
		switch number {
		case 1:
			t.Name = string(bytes)
		case 2:
			t.Type = tensor.DType(value)
		case 3:
			return t.parseShape(bytes)
		}
		return nil
	})
}

// parseShape reads TensorShapeProto: dim 2 {size 1}, unknown_rank 3.
func (t *TensorInfo) parseShape(message []byte) error {
	return wire.Fields(message, func(number int, value uint64, bytes []byte) error {
		switch number {
		case 2:
			size := int64(0)
			err := wire.Fields(bytes, func(number int, value uint64, _ []byte) error {
				if number == 1 {
					size = int64(value)
				}
				return nil
			})
			t.Dims = append(t.Dims, size)
			return err
		case 3:
			t.Known = value == 0
		}
		return nil
	})
}
