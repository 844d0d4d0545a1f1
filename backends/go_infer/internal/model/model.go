// Package model is one version of one model, loaded: its signatures, what it declares about itself, and how to run it.
//
// Contract: Load returns only a model that is complete on disk and warm in every batch size, recorded requests included, or an error that
// says what is wrong with which file. Close waits for what is running and frees everything.
package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/panics"
	"sluicegate/go_infer/internal/savedmodel"
	"sluicegate/go_infer/internal/session"
	"sluicegate/go_infer/internal/statistics"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// initSignature is TensorFlow's own; nobody calls it.
const initSignature = "__saved_model_init_op"

// Options say how a model is run.
type Options struct {
	Limits             batch.Limits
	IntraOp            int         // threads inside one op
	Nice               int         // by how much threads that load and warm give way to those that serve
	Alone              func() bool // whether nobody is served, so that there is nobody to give way to; asked with every step. nil: somebody is
	Pool               *tensor.Pool
	Events             batch.Events
	Tell               func(text string)             // what an operator should know; nil: nobody is told
	MaxRows, MaxAnswer int                           // see Signature
	Apart              func(signature string) string // why an operator wants a signature's requests to run one by one, empty: he does not; nil: none
	Trust              bool                          // do not find out whether rows are independent: where nobody says otherwise, they are
	Weight             int                           // of this model among those that have Limits.Share in common; 0 is 1

	Patience time.Duration     // for how long a load gives way at most; 0: however long it takes
	MadeUp   time.Duration     // for how long a signature is tried and warmed with made-up rows, but for a Run that has begun; 0: however long it takes
	Overdue  func(raised bool) // is told when that is over; whether the system let the load's threads have normal priority; nil: nobody is

	// Warmed is called when everything has been warmed; true: what serving needs may be out of memory now, and is warmed again. nil: nobody is told
	Warmed func() (again bool)
}

// Model is one loaded version.
type Model struct {
	Name       string
	Version    int64
	Directory  string
	Signatures map[string]*Servable
	Declared   *Declaration // nil if it declares nothing
	Limits     batch.Limits // of each signature
	Statistics statistics.Recorder

	session *session.Session
	pool    *tensor.Pool
	shadow  atomic.Pointer[Shadow]

	mu    sync.Mutex
	notes []string
}

// Servable is a signature that can be run.
type Servable struct {
	*Signature
	Model   *Model
	Refused string // why this server cannot run it, if it cannot
	runner  *runner
	batcher *batch.Batcher[*Request]
}

// Load reads, checks and warms the version in directory.
func Load(name string, version int64, directory string, options Options) (*Model, error) {
	defer options.giveWay()()
	if err := savedmodel.Complete(directory, session.PauseAfter); err != nil {
		return nil, err
	}
	declared, err := readDeclaration(directory)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", directory, err)
	}
	loaded, metaGraph, err := session.Load(directory, options.IntraOp, options.way())
	if err != nil {
		return nil, fmt.Errorf("%s: TensorFlow cannot load it: %w", directory, err)
	}
	m := &Model{
		Name: name, Version: version, Directory: directory, Declared: declared, Limits: options.Limits,
		Signatures: map[string]*Servable{}, session: loaded, pool: options.Pool,
	}
	said := options.Tell
	options.Tell = func(text string) {
		m.note(text)
		if said != nil {
			said(text)
		}
	}
	err = panics.Guard(nil, "a load", func() error { // what is loaded already is to be freed
		if err := m.prepare(metaGraph, options); err != nil {
			return err
		}
		if err := warmed(m.replay(directory, false)); err != nil {
			return err
		}
		if options.Warmed != nil && options.Warmed() {
			if err := m.rewarm(); err != nil { // it has been warm before
				options.Tell("it is not warmed again: " + err.Error())
			}
		}
		return nil
	})
	for _, servable := range m.Signatures {
		if servable.runner != nil {
			servable.runner.aside = nil
		}
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", directory, err)
	}
	m.count()
	return m, nil
}

// note keeps what an operator should know.
func (m *Model) note(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, text)
}

// Notes are what an operator should know: signatures that are not batched, or not warmed, and why.
func (m *Model) Notes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.notes)
}

// count begins to count: what warming took is not a request.
func (m *Model) count() {
	for _, servable := range m.Signatures {
		if servable.runner != nil {
			servable.runner.statistics = &m.Statistics
		}
	}
}

func (m *Model) prepare(metaGraph []byte, options Options) error {
	found, err := signatures(metaGraph)
	if err != nil {
		return fmt.Errorf("saved_model.pb: %w", err)
	}
	delete(found, initSignature)
	if len(found) == 0 {
		return errors.New("saved_model.pb: no signature to serve; export with tf.saved_model.save(..., signatures=...)")
	}
	for name, signature := range found {
		servable := &Servable{Signature: signature, Model: m}
		m.Signatures[name] = servable
		if bad := signature.unservable(); bad != "" {
			servable.Refused = fmt.Sprintf("signature %q cannot be served: %s", name, bad)
		}
	}
	graph, err := savedmodel.ReadGraph(metaGraph)
	if err != nil {
		return fmt.Errorf("saved_model.pb: %w", err)
	}
	recorded := m.recorded(m.Directory)
	for name, signature := range found {
		servable := m.Signatures[name]
		if servable.Refused != "" {
			continue
		}
		if servable.runner, err = newRunner(m.session, signature, options.Pool, options.Limits); err != nil {
			return fmt.Errorf("signature %q: %w", name, err)
		}
		signature.Changes = graph.Changes(names(signature.Inputs), names(signature.Outputs))
		servable.runner.aside, servable.runner.recorded = options.way, recorded[name]
		signature.MaxRows, signature.MaxAnswer = options.MaxRows, options.MaxAnswer
		if err := servable.runner.ready(m.Declared, options); err != nil {
			return fmt.Errorf("signature %q: %w", name, err)
		}
		servable.start(servable.runner.limits, options)
	}
	return m.checkDeclared()
}

// checkDeclared holds the declaration against the signature it speaks of.
func (m *Model) checkDeclared() error {
	d := m.Declared
	if d == nil {
		return nil
	}
	for name := range d.Batching.each {
		if m.Signatures[name] == nil {
			return fmt.Errorf("%s: batching names signature %q, which does not exist; there are %q", DeclarationFile, name, m.SignatureNames())
		}
	}
	servable, known := m.Signatures[d.Signature]
	if !known && d.bare() {
		return nil
	}
	if !known {
		return fmt.Errorf("%s: signature %q does not exist; there are %q", DeclarationFile, d.Signature, m.SignatureNames())
	}
	for _, role := range []struct {
		field, alias string
		among        []TensorInfo
	}{
		{"input.tensor", d.Input.Tensor, servable.Inputs},
		{"outputs.label", d.Outputs.Label, servable.Outputs},
		{"outputs.scores", d.Outputs.Scores, servable.Outputs},
	} {
		if role.alias != "" && index(role.among, role.alias) < 0 {
			return fmt.Errorf("%s: %s names %q, which signature %q does not have", DeclarationFile, role.field, role.alias, d.Signature)
		}
	}
	return d.check(servable.Signature)
}

// Signature finds a signature by name; empty is the default one. The text of the refusal is TF-Serving's.
func (m *Model) Signature(name string) (*Servable, error) {
	if name == "" {
		name = DefaultSignature
	}
	servable, known := m.Signatures[name]
	switch {
	case !known:
		return nil, status.Errorf(status.InvalidArgument, "Serving signature name: %q not found in signature def", name)
	case servable.Refused != "":
		return nil, status.Errorf(status.Unimplemented, "%s", servable.Refused)
	}
	return servable, nil
}

// SignatureNames lists the signatures, sorted.
func (m *Model) SignatureNames() []string { return slices.Sorted(maps.Keys(m.Signatures)) }

// Waiting is the number of rows in the queues of all signatures.
func (m *Model) Waiting() (rows int) {
	for _, servable := range m.Signatures {
		rows += servable.Waiting()
	}
	return rows
}

// Tally is what became of the requests to all signatures.
func (m *Model) Tally() (sum batch.Tally) {
	for _, servable := range m.Signatures {
		sum = sum.Plus(servable.Tally())
	}
	return sum
}

// Pool is where the tensors of this model's requests come from.
func (m *Model) Pool() *tensor.Pool { return m.pool }

// Close lets what runs finish, then frees the model.
func (m *Model) Close() {
	for _, servable := range m.Signatures {
		if servable.batcher != nil {
			servable.batcher.Close()
		}
		if servable.runner != nil {
			servable.runner.close()
		}
	}
	if m.session != nil {
		m.session.Close()
	}
	session.Trim()
}
