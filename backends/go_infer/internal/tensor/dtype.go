// Package tensor is memory that TensorFlow can read without copying: element types, and pooled aligned slabs.
package tensor

import "strconv"

// DType is an element type; the values are TF_DataType's and those of DataType in types.proto.
type DType int32

// The element types this server moves. String has no fixed size: its elements are in Value.Strings.
const (
	Float32  DType = 1
	Float64  DType = 2
	Int32    DType = 3
	Uint8    DType = 4
	Int16    DType = 5
	Int8     DType = 6
	String   DType = 7
	Int64    DType = 9
	Bool     DType = 10
	BFloat16 DType = 14
	Uint16   DType = 17
	Half     DType = 19 // IEEE 754 binary16
	Uint32   DType = 22
	Uint64   DType = 23
)

type dtypeRow struct {
	size  int    // bytes per element, 0 if it has no fixed size or is not moved
	name  string // as in types.proto, without "DT_"
	plain string // as TensorFlow prints it
}

// dtypes has every type of types.proto that a signature can name; those without a size, String apart, are refused by their name.
var dtypes = map[DType]dtypeRow{
	Float32:  {4, "FLOAT", "float"},
	Float64:  {8, "DOUBLE", "double"},
	Int32:    {4, "INT32", "int32"},
	Uint8:    {1, "UINT8", "uint8"},
	Int16:    {2, "INT16", "int16"},
	Int8:     {1, "INT8", "int8"},
	String:   {0, "STRING", "string"},
	8:        {0, "COMPLEX64", "complex64"},
	Int64:    {8, "INT64", "int64"},
	Bool:     {1, "BOOL", "bool"},
	11:       {0, "QINT8", "qint8"},
	12:       {0, "QUINT8", "quint8"},
	13:       {0, "QINT32", "qint32"},
	BFloat16: {2, "BFLOAT16", "bfloat16"},
	15:       {0, "QINT16", "qint16"},
	16:       {0, "QUINT16", "quint16"},
	Uint16:   {2, "UINT16", "uint16"},
	18:       {0, "COMPLEX128", "complex128"},
	Half:     {2, "HALF", "half"},
	20:       {0, "RESOURCE", "resource"},
	21:       {0, "VARIANT", "variant"},
	Uint32:   {4, "UINT32", "uint32"},
	Uint64:   {8, "UINT64", "uint64"},
	24:       {0, "FLOAT8_E5M2", "float8_e5m2"},
	25:       {0, "FLOAT8_E4M3FN", "float8_e4m3fn"},
	26:       {0, "FLOAT8_E4M3FNUZ", "float8_e4m3fnuz"},
	27:       {0, "FLOAT8_E4M3B11FNUZ", "float8_e4m3b11fnuz"},
	28:       {0, "FLOAT8_E5M2FNUZ", "float8_e5m2fnuz"},
	29:       {0, "INT4", "int4"},
	30:       {0, "UINT4", "uint4"},
	31:       {0, "INT2", "int2"},
	32:       {0, "UINT2", "uint2"},
	33:       {0, "FLOAT4_E2M1FN", "float4_e2m1fn"},
}

// Size is the bytes of one element, 0 for a type this server cannot hold in flat memory.
func (d DType) Size() int { return dtypes[d].size }

// Moved says whether this server can move tensors of the type between clients and TensorFlow.
func (d DType) Moved() bool { return d == String || d.Size() > 0 }

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
