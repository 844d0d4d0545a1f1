// Package status holds the error codes every part of the server answers with, and what each is in HTTP.
//
// The codes and their numbers in HTTP are TensorFlow's own (tensorflow/core/protobuf/error_codes.proto and TF-Serving's
// REST server), so that a client of TF-Serving sees what it expects.
package status

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Code is a canonical status code. The values are those of TF_Code in the C API.
type Code int

// The canonical codes.
const (
	OK                 Code = 0
	Cancelled          Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

// StatusClientClosedRequest is nginx's code for a client that went away; TF-Serving uses it for CANCELLED.
const StatusClientClosedRequest = 499

type row struct {
	name string
	http int
}

var table = [...]row{
	OK:                 {"OK", http.StatusOK},
	Cancelled:          {"CANCELLED", StatusClientClosedRequest},
	Unknown:            {"UNKNOWN", http.StatusInternalServerError},
	InvalidArgument:    {"INVALID_ARGUMENT", http.StatusBadRequest},
	DeadlineExceeded:   {"DEADLINE_EXCEEDED", http.StatusGatewayTimeout},
	NotFound:           {"NOT_FOUND", http.StatusNotFound},
	AlreadyExists:      {"ALREADY_EXISTS", http.StatusConflict},
	PermissionDenied:   {"PERMISSION_DENIED", http.StatusForbidden},
	ResourceExhausted:  {"RESOURCE_EXHAUSTED", http.StatusTooManyRequests},
	FailedPrecondition: {"FAILED_PRECONDITION", http.StatusBadRequest},
	Aborted:            {"ABORTED", http.StatusConflict},
	OutOfRange:         {"OUT_OF_RANGE", http.StatusBadRequest},
	Unimplemented:      {"UNIMPLEMENTED", http.StatusNotImplemented},
	Internal:           {"INTERNAL", http.StatusInternalServerError},
	Unavailable:        {"UNAVAILABLE", http.StatusServiceUnavailable},
	DataLoss:           {"DATA_LOSS", http.StatusInternalServerError},
	Unauthenticated:    {"UNAUTHENTICATED", http.StatusUnauthorized},
}

func (c Code) row() row {
	if c < 0 || int(c) >= len(table) {
		return table[Unknown]
	}
	return table[c]
}

// String is the code's canonical name, for instance "NOT_FOUND".
func (c Code) String() string { return c.row().name }

// HTTP is the status code of an HTTP answer that carries this code.
func (c Code) HTTP() int { return c.row().http }

// Error is a refusal with its code. HTTP, when not zero, overrides the table: some refusals are of HTTP itself
// (405, 413, 415) and have no canonical code of their own.
type Error struct {
	Code       Code
	HTTP       int
	Message    string
	RetryAfter time.Duration // when to come again, of a refusal because of overload; 0: not known
}

func (e *Error) Error() string { return e.Message }

// Status is what an HTTP answer to this error carries.
func (e *Error) Status() int {
	if e.HTTP != 0 {
		return e.HTTP
	}
	return e.Code.HTTP()
}

// RetrySeconds is RetryAfter as the field of that name says it: in whole seconds, never earlier, and at least one.
func (e *Error) RetrySeconds() int { return max(1, int((e.RetryAfter+time.Second-1)/time.Second)) }

// Errorf makes an Error.
func Errorf(code Code, format string, arguments ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, arguments...)}
}

// From finds the Error inside err; any other error is INTERNAL.
func From(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return &Error{Code: Internal, Message: err.Error()}
}
