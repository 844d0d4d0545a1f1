// Package tensor is memory that TensorFlow can read without copying: element types, and pooled aligned slabs.
package tensor

import "strconv"

// DType is an element type; the values are TF_DataType's and those of DataType in types.proto.
type DType int32

// The element types this server can move between JSON and memory; String is known so that it can be refused by name.
const (
	Float32 DType = 1
	Float64 DType = 2
	Int32   DType = 3
	Uint8   DType = 4
	Int16   DType = 5
	Int8    DType = 6
	String  DType = 7
	Int64   DType = 9
	Bool    DType = 10
	Uint16  DType = 17
	Uint32  DType = 22
	Uint64  DType = 23
)

type dtypeRow struct {
	size  int    // bytes per element, 0 if it has no fixed size
	name  string // as in types.proto, without "DT_"
	plain string // as TensorFlow prints it
}

var dtypes = map[DType]dtypeRow{
	Float32: {4, "FLOAT", "float"},
	Float64: {8, "DOUBLE", "double"},
	Int32:   {4, "INT32", "int32"},
	Uint8:   {1, "UINT8", "uint8"},
	Int16:   {2, "INT16", "int16"},
	Int8:    {1, "INT8", "int8"},
	String:  {0, "STRING", "string"},
	Int64:   {8, "INT64", "int64"},
	Bool:    {1, "BOOL", "bool"},
	Uint16:  {2, "UINT16", "uint16"},
	Uint32:  {4, "UINT32", "uint32"},
	Uint64:  {8, "UINT64", "uint64"},
}

// Size is the bytes of one element, 0 for a type this server cannot hold in flat memory.
func (d DType) Size() int { return dtypes[d].size }

// Proto is the type's name in a DataType enum, for instance "DT_FLOAT".
func (d DType) Proto() string {
	if row, known := dtypes[d]; known {
		return "DT_" + row.name
	}
	return strconv.Itoa(int(d))
}

// String is the type's name as TensorFlow prints it in errors, for instance "float".
func (d DType) String() string {
	if row, known := dtypes[d]; known {
		return row.plain
	}
	return "dtype " + strconv.Itoa(int(d))
}
