package otlp

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"sluicegate/go_infer/internal/trace"
)

// Field numbers of opentelemetry/proto/{collector/trace/v1/trace_service,trace/v1/trace,common/v1/common,resource/v1/resource}.proto.
const (
	requestResourceSpans = 1

	resourceSpansResource = 1
	resourceSpansScope    = 2
	resourceAttributes    = 1
	scopeSpansScope       = 1
	scopeSpansSpans       = 2
	scopeName             = 1

	spanTraceID    = 1
	spanID         = 2
	spanParentID   = 4
	spanName       = 5
	spanKind       = 6
	spanBegan      = 7
	spanEnded      = 8
	spanAttributes = 9
	spanStatus     = 15
	spanFlags      = 16

	statusCode    = 3
	kindServer    = 2
	statusIsError = 2

	// flagsRemoteParent is "sampled", "it is known whether the parent is remote" and "it is".
	flagsRemoteParent = 0x01 | 0x100 | 0x200

	keyValueKey   = 1
	keyValueValue = 2
	valueString   = 1
	valueBool     = 2
	valueInt      = 3
)

// scope is who made the spans.
const scope = "sluicegate/go_infer"

// message appends a field that is a message, which fill writes.
func message(text []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(text, field, protowire.BytesType), fill(nil))
}

func stringField(text []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(text, field, protowire.BytesType), value)
}

func varint(text []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(text, field, protowire.VarintType), value)
}

// encode makes an ExportTraceServiceRequest.
func encode(spans []*trace.Span, resource map[string]string) []byte {
	return message(nil, requestResourceSpans, func(text []byte) []byte {
		text = message(text, resourceSpansResource, func(text []byte) []byte {
			for _, key := range slices.Sorted(maps.Keys(resource)) {
				text = attribute(text, resourceAttributes, key, resource[key])
			}
			return text
		})
		return message(text, resourceSpansScope, func(text []byte) []byte {
			text = message(text, scopeSpansScope, func(text []byte) []byte { return stringField(text, scopeName, scope) })
			for _, span := range spans {
				text = message(text, scopeSpansSpans, func(text []byte) []byte { return appendSpan(text, span) })
			}
			return text
		})
	})
}

func appendSpan(text []byte, span *trace.Span) []byte {
	for _, id := range []struct {
		field protowire.Number
		hex   string
	}{{spanTraceID, span.TraceID}, {spanID, span.SpanID}, {spanParentID, span.ParentID}} {
		raw, _ := hex.DecodeString(id.hex) // trace.Begin has seen to that
		text = protowire.AppendBytes(protowire.AppendTag(text, id.field, protowire.BytesType), raw)
	}
	text = stringField(text, spanName, span.Name)
	text = varint(text, spanKind, kindServer)
	text = protowire.AppendFixed64(protowire.AppendTag(text, spanBegan, protowire.Fixed64Type), uint64(span.Began))
	text = protowire.AppendFixed64(protowire.AppendTag(text, spanEnded, protowire.Fixed64Type), uint64(span.Ended))
	for _, key := range slices.Sorted(maps.Keys(span.Facts)) {
		text = attribute(text, spanAttributes, key, span.Facts[key])
	}
	if span.Failed {
		text = message(text, spanStatus, func(text []byte) []byte { return varint(text, statusCode, statusIsError) })
	}
	return protowire.AppendFixed32(protowire.AppendTag(text, spanFlags, protowire.Fixed32Type), flagsRemoteParent)
}

// attribute appends a KeyValue.
func attribute(text []byte, field protowire.Number, key string, value any) []byte {
	return message(text, field, func(text []byte) []byte {
		text = stringField(text, keyValueKey, key)
		return message(text, keyValueValue, func(text []byte) []byte {
			switch v := value.(type) {
			case string:
				return stringField(text, valueString, v)
			case bool:
				return varint(text, valueBool, protowire.EncodeBool(v))
			case int:
				return varint(text, valueInt, uint64(v))
			}
			return stringField(text, valueString, fmt.Sprint(value))
		})
	})
}

// rejected reads an ExportTraceServiceResponse: partial_success 1 {rejected_spans 1, error_message 2}.
func rejected(answer []byte) (spans int64, reason string) {
	for len(answer) > 0 {
		field, kind, n := protowire.ConsumeTag(answer)
		if n < 0 {
			return spans, reason
		}
		answer = answer[n:]
		switch {
		case field == 1 && kind == protowire.BytesType && reason == "" && spans == 0:
			inner, n := protowire.ConsumeBytes(answer)
			if n < 0 {
				return spans, reason
			}
			answer = answer[n:]
			for len(inner) > 0 {
				field, kind, n := protowire.ConsumeTag(inner)
				if n < 0 {
					return spans, reason
				}
				inner = inner[n:]
				switch {
				case field == 1 && kind == protowire.VarintType:
					number, m := protowire.ConsumeVarint(inner)
					spans, n = int64(number), m
				case field == 2 && kind == protowire.BytesType:
					text, m := protowire.ConsumeString(inner)
					reason, n = text, m
				default:
					n = protowire.ConsumeFieldValue(field, kind, inner)
				}
				if n < 0 {
					return spans, reason
				}
				inner = inner[n:]
			}
		default:
			if n = protowire.ConsumeFieldValue(field, kind, answer); n < 0 {
				return spans, reason
			}
			answer = answer[n:]
		}
	}
	return spans, reason
}
