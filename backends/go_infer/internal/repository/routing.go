package repository

import (
	"fmt"
	"math/rand/v2"

	"sluicegate/go_infer/internal/status"
)

// Who answers. Every function here is called with the repository's lock held, for reading at least.

// share is a part of a model's traffic: a version, or what a label points at.
type share struct {
	number int64
	label  string
	weight int
}

// target is the version that a share means; false if its label points at nothing.
func (m *served) target(s *share) (int64, bool) {
	if s.label == "" {
		return s.number, true
	}
	return m.labelled(s.label)
}

// labelled is the version that a label points at; of a lazy model also one that has it once it is loaded, which who asks brings about.
func (m *served) labelled(label string) (int64, bool) {
	number, known := m.labels[label]
	if !known && m.lazy {
		number, known = m.pending[label]
		known = known && m.version(number) != nil
	}
	return number, known
}

// version finds one by its number.
func (m *served) version(number int64) *version {
	for _, v := range m.versions {
		if v.place.Number == number {
			return v
		}
	}
	return nil
}

// settleAnswer finds who answers when a request asks for nothing in particular: the highest version that can, of those that shall. It
// also tells those that can of their shadow.
func (m *served) settleAnswer() {
	var fallback *version
	m.answer, m.latest = nil, nil
	for _, v := range m.versions { // ascending
		if v.lease != nil {
			v.lease.Model.Mirror(m.mirror)
		}
		switch {
		case v.lease == nil:
		case v.aspired:
			m.answer = v
		default:
			fallback = v
		}
	}
	if m.answer == nil {
		m.answer = fallback
	}
	for _, v := range m.versions {
		if good := v.lease != nil || v.err == nil; m.lazy && good && (v.aspired && !v.aside || v.spare && (m.latest == nil || m.latest.spare)) {
			m.latest = v
		}
	}
}

// usual is who answers a request that asks for nothing in particular, shares of the traffic apart.
func (m *served) usual() *version {
	if m.latest != nil {
		return m.latest
	}
	return m.answer
}

// choose is who answers a request that asks for nothing in particular. Shares whose version cannot answer are left out, so that a
// canary that failed costs nobody an answer; of lazy models those that can be loaded stay, for that is how they come to be. nil if none can.
func (m *served) choose() *version {
	if len(m.split) == 0 {
		return m.usual()
	}
	sum := 0
	for i := range m.split {
		if m.able(&m.split[i]) != nil {
			sum += m.split[i].weight
		}
	}
	if sum == 0 {
		return m.usual()
	}
	at := rand.IntN(sum)
	for i := range m.split {
		if v := m.able(&m.split[i]); v != nil {
			if at -= m.split[i].weight; at < 0 {
				return v
			}
		}
	}
	return m.usual()
}

// able is the version of a share if it answers, or will when it is asked for.
func (m *served) able(s *share) *version {
	if v := m.meant(s); v != nil && (v.lease != nil || m.loadable(v)) {
		return v
	}
	return nil
}

// partial says that shares of the traffic are still to be loaded.
func (m *served) partial() bool {
	for i := range m.split {
		if v := m.able(&m.split[i]); v != nil && v.lease == nil {
			return true
		}
	}
	return false
}

// meant is the version of a share, whatever its state.
func (m *served) meant(s *share) *version {
	if number, known := m.target(s); known {
		return m.version(number)
	}
	return nil
}

// loadable says that a version is loaded if somebody asks for it, as far as is known.
func (m *served) loadable(v *version) bool { return m.lazy && v.aspired && !v.aside && v.err == nil }

// find is the version that a request means; nil if there is none. The error is about a label that points at nothing.
func (m *served) find(wanted Wanted) (*version, error) {
	if wanted.Label != "" {
		number, known := m.labelled(wanted.Label)
		if !known {
			return nil, unknownLabel(wanted.Label)
		}
		return m.version(number), nil
	}
	if wanted.specific() {
		return m.version(wanted.Version), nil
	}
	if v := m.choose(); v != nil {
		return v, nil
	}
	var last *version // the highest on its way, else the highest that failed
	for _, v := range m.versions {
		if v.aspired && (last == nil || v.coming() || !last.coming()) {
			last = v
		}
	}
	return last, nil
}

func unknownLabel(label string) error {
	return status.Errorf(status.InvalidArgument, "Unrecognized servable version label: %s", label)
}

// request is what TF-Serving calls a request's model in its refusals.
func (w Wanted) request(name string) string {
	switch {
	case w.Label != "":
		return fmt.Sprintf("Label(%s, %s)", name, w.Label)
	case w.specific():
		return fmt.Sprintf("Specific(%s, %d)", name, w.Version)
	}
	return fmt.Sprintf("Latest(%s)", name)
}

// absent is the refusal for a version that cannot answer now. One that is still on its way is UNAVAILABLE, not unknown.
func absent(name string, wanted Wanted, v *version) error {
	if v != nil && (v.state == Loading || v.state == Start) && v.err == nil {
		return status.Errorf(status.Unavailable, "Servable is still loading: %s", wanted.request(name))
	}
	if v != nil && v.err != nil && v.state == Start {
		return status.Errorf(status.Unavailable, "%s cannot be loaded now: %v", wanted.request(name), v.err)
	}
	return status.Errorf(status.NotFound, "Servable not found for request: %s", wanted.request(name))
}
