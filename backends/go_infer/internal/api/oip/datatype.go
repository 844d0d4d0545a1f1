package oip

import "sluicegate/go_infer/internal/tensor"

// datatypes are the protocol's names of element types; FP16 and BYTES are in its document, BF16 is Triton's.
var datatypes = map[tensor.DType]string{
	tensor.Bool: "BOOL", tensor.Uint8: "UINT8", tensor.Uint16: "UINT16", tensor.Uint32: "UINT32", tensor.Uint64: "UINT64",
	tensor.Int8: "INT8", tensor.Int16: "INT16", tensor.Int32: "INT32", tensor.Int64: "INT64",
	tensor.Half: "FP16", tensor.Float32: "FP32", tensor.Float64: "FP64", tensor.BFloat16: "BF16", tensor.String: "BYTES",
}
