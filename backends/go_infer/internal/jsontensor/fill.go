package jsontensor

import (
	"slices"

	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// Shape completes dims, in which -1 means any, from the value at span: a free dimension takes the length of the first list at its
// level. With known false the rank too is the value's own.
func Shape(body []byte, span Span, dims []int64, known bool) []int64 {
	at, level := span.Start, 0
	reached := true // false once an empty list or a scalar ends the descent
	for reached && (!known || level < len(dims)) {
		if body[at] != '[' {
			break
		}
		if !known {
			dims = append(dims, int64(count(body, at)))
		} else if dims[level] < 0 {
			dims[level] = int64(count(body, at))
		}
		at, reached = first(body, at)
		level++
	}
	for i, dim := range dims {
		if dim < 0 {
			dims[i] = 0
		}
	}
	return dims
}

// Fill writes the value at span into value's memory, beginning at element offset; dims is the shape the value must have.
// Ragged, too deep, too shallow or of another type: refused, with TF-Serving's text and the offset.
func Fill(body []byte, span Span, value *tensor.Value, offset int, dims []int64) error {
	filler := filler{text: body}
	if value.Type == tensor.String {
		filler.strings = &arena{make([]byte, 0, span.End-span.Start)}
	}
	_, err := filler.into(span.Start, value, offset, dims)
	return err
}

type filler struct {
	text    []byte
	value   *tensor.Value
	element int
	dims    []int64
	strings *arena // nil where there are none
}

// into is Fill for the value that begins at position at; it returns the position after it.
func (f *filler) into(at int, value *tensor.Value, offset int, dims []int64) (int, error) {
	f.value, f.element, f.dims = value, offset, dims
	return f.fill(at, 0)
}

// refuse is an error that says where it is.
func refuse(at int, format string, arguments ...any) error {
	return status.Errorf(status.InvalidArgument, format+" at offset: %d", append(arguments, at)...)
}

// fill writes the value at position at, which lies at the given level, and returns the position after it.
func (f *filler) fill(at, level int) (int, error) {
	if level == len(f.dims) {
		return f.scalar(at, level)
	}
	if f.text[at] != '[' {
		return at, refuse(at, "JSON Value: %s found at incorrect level: %d in the JSON DOM. Expected at level: %d",
			Quote(f.text[at:skip(f.text, at)]), level+1, len(f.dims))
	}
	want := int(f.dims[level])
	if level == len(f.dims)-1 {
		return f.row(at, level, want)
	}
	start := at
	at, more := first(f.text, at)
	n := 0
	if !more {
		at++ // after the empty list
	}
	for more {
		if n == want {
			return at, wrongSize(count(f.text, start), level, want, start)
		}
		n++
		after, err := f.fill(at, level+1)
		if err != nil {
			return at, err
		}
		at, more = next(f.text, after)
	}
	if n != want {
		return at, wrongSize(n, level, want, start)
	}
	return at, nil
}

func wrongSize(n, level, want, at int) error {
	return refuse(at, "Encountered list at unexpected size: %d at level: %d expected size: %d", n, level, want)
}

func tooDeep(level, expected, at int) error {
	return refuse(at, "Encountered list at unexpected level: %d expected < %d", level, expected)
}

// row writes a list of plain values.
func (f *filler) row(at, level, want int) (int, error) {
	n, end, err := f.read(f.text, at, want)
	if err != nil {
		if f.text[end] == '[' {
			return end, tooDeep(level+1, len(f.dims), end)
		}
		return end, refuse(end, "%s", err)
	}
	if n != want {
		return end, wrongSize(n, level, want, at)
	}
	if n == 0 {
		end++ // after the empty list
	}
	f.element += n
	return end, nil
}

// scalar writes a single value by reading it as a list of one.
func (f *filler) scalar(at, level int) (int, error) {
	if f.text[at] == '[' {
		return at, tooDeep(level, len(f.dims), at)
	}
	end := skip(f.text, at)
	list := slices.Concat([]byte{'['}, f.text[at:end], []byte{']'})
	if _, _, err := f.read(list, 0, 1); err != nil {
		return at, refuse(at, "%s", err)
	}
	f.element++
	return end, nil
}

// read writes the list at position at of text into elements [element, element+want) of the value.
func (f *filler) read(text []byte, at, want int) (n, end int, err error) {
	if f.value.Type == tensor.String {
		return f.strings.row(text, at, f.value.Strings[f.element:f.element+want])
	}
	return rows[f.value.Type](text, at, f.value.Slab, f.element, want)
}

type rowReader func(text []byte, at int, slab *tensor.Slab, element, want int) (n, end int, err error)

// rows has a reader for every type with a size; it writes elements [element, element+want) of a slab.
var rows = [...]rowReader{
	tensor.Float32:  reader(tensor.Float32, floats[float32]),
	tensor.Float64:  reader(tensor.Float64, floats[float64]),
	tensor.Half:     reader(tensor.Half, halves(tensor.HalfBits, tensor.HalfValue)),
	tensor.BFloat16: reader(tensor.BFloat16, halves(tensor.BFloat16Bits, tensor.BFloat16Value)),
	tensor.Int8:     reader(tensor.Int8, ints[int8]),
	tensor.Int16:    reader(tensor.Int16, ints[int16]),
	tensor.Int32:    reader(tensor.Int32, ints[int32]),
	tensor.Int64:    reader(tensor.Int64, ints[int64]),
	tensor.Uint8:    reader(tensor.Uint8, ints[uint8]),
	tensor.Uint16:   reader(tensor.Uint16, ints[uint16]),
	tensor.Uint32:   reader(tensor.Uint32, ints[uint32]),
	tensor.Uint64:   reader(tensor.Uint64, ints[uint64]),
	tensor.Bool:     reader(tensor.Bool, bools),
}

func reader[T any](dtype tensor.DType, read func(text []byte, at int, row []T, dtype tensor.DType) (int, int, error)) rowReader {
	return func(text []byte, at int, slab *tensor.Slab, element, want int) (int, int, error) {
		return read(text, at, tensor.View[T](slab, element+want)[element:], dtype)
	}
}
