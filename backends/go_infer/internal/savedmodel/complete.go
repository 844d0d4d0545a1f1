// Package savedmodel looks at a SavedModel on disk before TensorFlow does: is it whole, has it changed, how is it to be warmed.
//
// Contract: Complete finds what TensorFlow would load "successfully" and fail on later (a graph whose variables are missing, a data
// shard that was cut short, an asset that was not copied yet), and says which file is wrong and how. Nothing here needs TensorFlow.
// Source: tensorflow/core/protobuf/saved_model.proto and meta_graph.proto, tensorflow/cc/saved_model/constants.h.
package savedmodel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sluicegate/go_infer/internal/wire"
)

const (
	graphFile = "saved_model.pb"
	indexFile = "variables/variables.index"
)

// Complete refuses a version that was not copied completely, or was damaged. If files are to be hashed, pause is called after every piece
// with how long it took.
func Complete(directory string, pause func(worked time.Duration)) error {
	if err := checkManifest(directory, pause); err != nil {
		return fmt.Errorf("%s: %w", directory, err)
	}
	if err := present(directory, graphFile); err != nil {
		return fmt.Errorf("%s: %w", directory, err)
	}
	graph, err := readGraph(filepath.Join(directory, graphFile))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", directory, graphFile, err)
	}
	for _, asset := range graph.assets {
		if err := present(directory, filepath.Join("assets", asset)); err != nil && !errors.Is(err, errEmpty) {
			return fmt.Errorf("%s: %w", directory, err)
		}
	}
	if err := checkVariables(directory, graph.variables); err != nil {
		return fmt.Errorf("%s: %w", directory, err)
	}
	return nil
}

var errEmpty = errors.New("is empty: not copied completely")

// present refuses a file that is not there, or empty.
func present(directory, file string) error {
	info, err := os.Stat(filepath.Join(directory, file))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is missing: not a SavedModel, or not copied completely", file)
	case err != nil:
		return err
	case info.Size() == 0:
		return fmt.Errorf("%s %w", file, errEmpty)
	}
	return nil
}

// checkVariables holds the index against the shards. A graph without variables needs neither.
func checkVariables(directory string, needed bool) error {
	if err := present(directory, indexFile); err != nil {
		if _, gone := os.Stat(filepath.Join(directory, "variables")); !needed && errors.Is(gone, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	shards, err := filepath.Glob(filepath.Join(directory, "variables/variables.data-*"))
	if err != nil || len(shards) == 0 {
		return errors.New("variables/variables.data-* is missing: not copied completely")
	}
	bundle, err := readBundle(filepath.Join(directory, indexFile))
	if errors.Is(err, errCompressed) {
		return nil // TensorFlow reads it; only sizes cannot be checked
	}
	if err != nil {
		return fmt.Errorf("%s: %w", indexFile, err)
	}
	for shard := range bundle.shards {
		file := fmt.Sprintf("variables/variables.data-%05d-of-%05d", shard, bundle.shards)
		info, err := os.Stat(filepath.Join(directory, file))
		switch end := bundle.ends[shard]; {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s is missing: the index speaks of %d shards; not copied completely", file, bundle.shards)
		case err != nil:
			return err
		case info.Size() < end:
			return fmt.Errorf("%s has %d bytes; its variables need %d: not copied completely", file, info.Size(), end)
		}
	}
	return nil
}

// graph is what completeness depends on in saved_model.pb.
type graph struct {
	variables bool     // there are operations that hold some
	assets    []string // file names below assets/
}

// holders are the operations whose values come from variables/.
var holders = map[string]bool{"VarHandleOp": true, "VariableV2": true, "Variable": true}

// readGraph reads SavedModel: meta_graphs 2 { graph_def 2 { node 1, library 2 { function 1 { node_def 3 }}}, asset_file_def 6 }.
func readGraph(path string) (graph, error) {
	var g graph
	content, err := os.ReadFile(path)
	if err != nil {
		return g, err
	}
	metaGraphs := 0
	node := func(number int, _ uint64, bytes []byte) error { // NodeDef: op 2
		if number == 2 {
			g.variables = g.variables || holders[string(bytes)]
		}
		return nil
	}
	within := func(wanted int, inner func(int, uint64, []byte) error) func(int, uint64, []byte) error {
		return func(number int, _ uint64, bytes []byte) error {
			if number != wanted {
				return nil
			}
			return wire.Fields(bytes, inner)
		}
	}
	nodes, functions := within(1, node), within(1, within(3, node))
	err = wire.Fields(content, func(number int, _ uint64, metaGraph []byte) error {
		if number != 2 {
			return nil
		}
		metaGraphs++
		return wire.Fields(metaGraph, func(number int, _ uint64, bytes []byte) error {
			switch number {
			case 2:
				return wire.Fields(bytes, func(number int, value uint64, bytes []byte) error {
					if number == 2 {
						return wire.Fields(bytes, functions)
					}
					return nodes(number, value, bytes)
				})
			case 6:
				return wire.Fields(bytes, func(number int, _ uint64, bytes []byte) error { // AssetFileDef: filename 2
					if number == 2 {
						g.assets = append(g.assets, string(bytes))
					}
					return nil
				})
			}
			return nil
		})
	})
	if err == nil && metaGraphs == 0 {
		err = errors.New("it holds no graph: not a SavedModel, or not copied completely")
	}
	if err != nil && errors.Is(err, wire.ErrTruncated) {
		err = fmt.Errorf("truncated or corrupted (%w)", err)
	}
	return g, err
}
