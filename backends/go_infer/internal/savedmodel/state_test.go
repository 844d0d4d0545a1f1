package savedmodel

import (
	"slices"
	"strings"
	"testing"
)

// message joins fields of bytes.
func message(fields ...[]byte) []byte { return slices.Concat(fields...) }

// part is a field that is shorter than 128 bytes, or a message of several.
func part(number int, content []byte) []byte {
	head := []byte{byte(number<<3 | 2), byte(len(content)&0x7f | 0x80), byte(len(content) >> 7)}
	return append(head, content...)
}

func text(number int, content string) []byte { return part(number, []byte(content)) }

// operation is a NodeDef "NAME=OP(INPUT,INPUT) FUNCTION".
func operation(t *testing.T, line string) []byte {
	t.Helper()
	name, rest, ok := strings.Cut(line, "=")
	op, rest, opened := strings.Cut(rest, "(")
	inputs, function, closed := strings.Cut(rest, ")")
	if !ok || !opened || !closed {
		t.Fatal(line)
	}
	node := message(text(1, name), text(2, op))
	for _, input := range strings.FieldsFunc(inputs, func(r rune) bool { return r == ',' }) {
		node = append(node, text(3, input)...)
	}
	if function = strings.TrimSpace(function); function != "" {
		named := text(1, function)
		value := part(10, named)
		if list, found := strings.CutPrefix(function, "list "); found {
			value = part(1, part(9, text(1, list)))
		}
		node = append(node, part(5, message(text(1, "f"), part(2, value)))...)
	}
	return node
}

func TestWhatARunReachesSaysWhetherItChangesState(t *testing.T) {
	var graph []byte
	for _, line := range []string{
		"x=Placeholder()", "v=VarHandleOp()", "read=ReadVariableOp(v)", "pure=AddV2(x,read)", "scattered=ScatterNd(x)", "tensor=TensorScatterUpdate(x)",
		"assign=AssignVariableOp(v,x)", "after=Identity(x,^assign)", "first=Split(after)", "second=Neg(first:1)", "old=AssignAdd(v,x)",
		"called=StatefulPartitionedCall(x) outer", "harmless=PartitionedCall(x) pure", "case=Case(x) list inner", "legacy=inner(x)", "around=PartitionedCall(x) itself",
		"sparse=ResourceSparseApplyAdam(v)", "queue=QueueDequeueUpToV2(v)", "random=RngReadAndSkip(v)", "unmap=MapUnstageNoKey()", "clear=OrderedMapClear()",
	} {
		graph = append(graph, part(1, operation(t, line))...)
	}
	function := func(name string, body ...string) []byte {
		all := part(1, text(1, name))
		for _, line := range body {
			all = append(all, part(3, operation(t, line))...)
		}
		return part(1, all)
	}
	library := message(function("outer", "loop=While(x) inner"), function("inner", "put=LookupTableInsertV2(x)"), function("pure", "y=Neg(x)"),
		function("itself", "y=PartitionedCall(x) itself"))
	read, err := ReadGraph(part(2, message(graph, part(2, library))))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ feeds, fetches, want string }{
		{"x:0", "pure:0", ""}, {"x:0", "scattered", ""}, {"x:0", "tensor:0", ""}, {"x:0", "random:0", ""},
		{"x:0", "after:0", "AssignVariableOp"}, {"x:0", "second:0", "AssignVariableOp"}, {"x:0 first:1", "second:0", ""}, {"x:0 first:0", "second:0", "AssignVariableOp"},
		{"x:0", "old:0", "AssignAdd"}, {"x:0", "called:3", "LookupTableInsertV2"}, {"x:0", "harmless:0", ""}, {"x:0", "case:0", "LookupTableInsertV2"},
		{"x:0", "legacy:0", "LookupTableInsertV2"}, {"x:0", "around:0", ""}, {"x:0", "sparse:0", "ResourceSparseApplyAdam"},
		{"x:0", "queue:0", "QueueDequeueUpToV2"}, {"x:0", "pure:0 queue:0", "QueueDequeueUpToV2"}, {"x:0", "unmap:0", "MapUnstageNoKey"}, {"x:0", "clear:0", "OrderedMapClear"},
		{"x:0", "nowhere:0", ""},
	} {
		if got := read.Changes(strings.Fields(c.feeds), strings.Fields(c.fetches)); got != c.want {
			t.Errorf("%s from %s: %q, want %q", c.fetches, c.feeds, got, c.want)
		}
	}
	if _, err := ReadGraph([]byte{2<<3 | 2, 5, 1}); err == nil {
		t.Error("a graph that is cut short is read")
	}
}
