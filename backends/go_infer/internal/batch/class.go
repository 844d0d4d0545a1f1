package batch

import "fmt"

// Class is how urgent a request is. A slot takes what waits of a higher class first; a lower one is never left for good (see queue).
type Class int8

// The classes. The zero value is the ordinary one.
const (
	Critical Class = iota - 1
	Default
	Batch
)

// classes is their number; line is a class's position in the queue.
const classes = 3

func (c Class) line() int { return int(c) + 1 }

var classNames = [classes]string{"critical", "default", "batch"}

// String is the class's name as headers and metrics spell it.
func (c Class) String() string { return classNames[c.line()] }

// ParseClass reads a class by its name, in lower case; empty is Default.
func ParseClass(name string) (Class, error) {
	for line, known := range classNames {
		if name == known {
			return Class(line - 1), nil
		}
	}
	if name == "" {
		return Default, nil
	}
	return Default, fmt.Errorf("%q is not a priority; there are critical, default and batch", name)
}

// ClassOfLevel reads the priority parameter of the Open Inference Protocol as Triton defines it: 0 is what the model says (Default), 1
// the most urgent, a greater number less urgent. Here 1 is Critical, 2 is Default and everything beyond is Batch.
func ClassOfLevel(level uint64) Class {
	switch level {
	case 0, 2:
		return Default
	case 1:
		return Critical
	}
	return Batch
}

// Claim is the class of a request that claims one, while another was granted by who is in front: Default claims nothing, a less urgent
// one is always believed, a more urgent one if the request is trusted.
func Claim(claimed, granted Class, trusted bool) Class {
	switch {
	case claimed == Default:
		return granted
	case trusted:
		return claimed
	}
	return max(claimed, granted)
}

type contextKey struct{}

// ContextKey is where a transport that has a field for the class of a request puts it into the request's context.
var ContextKey = contextKey{}
