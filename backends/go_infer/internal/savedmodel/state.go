package savedmodel

import (
	"regexp"
	"strings"

	"sluicegate/go_infer/internal/wire"
)

// Graph is the operations of a MetaGraphDef: the nodes of its graph by their names, and those of its functions by the functions' names.
type Graph struct {
	nodes     map[string]*node
	functions map[string][]*node
}

type node struct {
	op     string
	inputs []string // "NODE", "NODE:1", "^NODE"
	calls  []string // functions that its attributes name
}

// changing are TensorFlow's operations that leave something behind for later Runs, in variables of both kinds, tables, queues and staging
// areas. Not among them are those that only draw random numbers, nor stacks and tensor arrays, which end with their Run.
// Source: the OpDefs of TensorFlow 2.21 with a reference or a resource among their inputs (TF_GetAllOpList).
var changing = regexp.MustCompile(`^(` + strings.Join([]string{
	`Assign(Add|Sub)?(VariableOp)?`, `AssignVariableXlaConcatND`, `(Resource)?CountUpTo`, `(Resource)?StridedSliceAssign`,
	`(Resource)?Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|Update)`, `(Resource)?(Sparse)?Apply[A-Z]\w*`,
	`(Resource|Sparse)?Accumulator(Apply|Take)Gradient`, `LookupTable(Insert|Remove|Import)(V2)?`, `InitializeTable(FromTextFile|FromDataset)?(V2)?`,
	`Queue(Enqueue|Dequeue)(Many|UpTo)?(V2)?`, `((Ordered)?Map)?(Stage|Unstage|Clear|UnstageNoKey)`, `StageClear`,
}, "|") + `)$`)

// ReadGraph reads MetaGraphDef.graph_def (2): node (1), and library (2) with function (1).
func ReadGraph(metaGraph []byte) (*Graph, error) {
	g := &Graph{nodes: map[string]*node{}, functions: map[string][]*node{}}
	return g, within(metaGraph, 2, func(graph []byte) error {
		return wire.Fields(graph, func(number int, _ uint64, bytes []byte) error {
			switch number {
			case 1:
				name, read, err := readNode(bytes)
				g.nodes[name] = read
				return err
			case 2:
				return within(bytes, 1, g.readFunction)
			}
			return nil
		})
	})
}

// within calls visit for every field of that number.
func within(message []byte, field int, visit func(bytes []byte) error) error {
	return wire.Fields(message, func(number int, _ uint64, bytes []byte) error {
		if number != field {
			return nil
		}
		return visit(bytes)
	})
}

// readFunction reads FunctionDef: signature 1 (OpDef: name 1), node_def 3.
func (g *Graph) readFunction(message []byte) error {
	name, body := "", []*node(nil)
	err := wire.Fields(message, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 1:
			return within(bytes, 1, func(text []byte) error { name = string(text); return nil })
		case 3:
			_, read, err := readNode(bytes)
			body = append(body, read)
			return err
		}
		return nil
	})
	g.functions[name] = body
	return err
}

// readNode reads NodeDef: name 1, op 2, input 3, attr 5 (a map, whose values are field 2 of an entry).
func readNode(message []byte) (name string, n *node, err error) {
	n = &node{}
	return name, n, wire.Fields(message, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 1:
			name = string(bytes)
		case 2:
			n.op = string(bytes)
		case 3:
			n.inputs = append(n.inputs, string(bytes))
		case 5:
			return within(bytes, 2, n.readValue)
		}
		return nil
	})
}

// readValue reads AttrValue: func 10, or list 1 with func 9; a function is a NameAttrList: name 1.
func (n *node) readValue(value []byte) error {
	named := func(function []byte) error {
		return within(function, 1, func(text []byte) error { n.calls = append(n.calls, string(text)); return nil })
	}
	return wire.Fields(value, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 1:
			return within(bytes, 9, named)
		case 10:
			return named(bytes)
		}
		return nil
	})
}

// Changes is an operation that changes state, if a Run from the fed tensors to those that are fetched reaches one; empty: none. Of a function
// everything counts, be it reached or not.
func (g *Graph) Changes(feeds, fetches []string) string {
	fed, seen := map[string]bool{}, map[string]bool{}
	for _, tensor := range feeds {
		fed[strings.TrimSuffix(tensor, ":0")] = true
	}
	waiting := append([]string(nil), fetches...)
	for len(waiting) > 0 {
		tensor := strings.TrimSuffix(waiting[len(waiting)-1], ":0")
		waiting = waiting[:len(waiting)-1]
		name, _, _ := strings.Cut(strings.TrimPrefix(tensor, "^"), ":")
		n := g.nodes[name]
		if fed[tensor] || seen[name] || n == nil {
			continue
		}
		seen[name] = true
		if op := g.calls(n, map[string]bool{}); op != "" {
			return op
		}
		waiting = append(waiting, n.inputs...)
	}
	return ""
}

// calls is Changes of a node and of the functions that it calls, but for those that were seen.
func (g *Graph) calls(n *node, seen map[string]bool) string {
	if changing.MatchString(n.op) {
		return n.op
	}
	for _, function := range append(n.calls, n.op) { // an operation may be a function by name
		if seen[function] {
			continue
		}
		seen[function] = true
		for _, inner := range g.functions[function] {
			if op := g.calls(inner, seen); op != "" {
				return op
			}
		}
	}
	return ""
}
