package batch

import (
	"sync"
	"time"
)

// Share is the Run slots of a machine, which all models have in common.
//
// A slot that is free goes to whoever asks. When several models wait, the next that frees goes to the one that has had the least of the
// machine's time for its weight: weighted round robin where Runs are equally long, and fair where they are not, for what is shared is
// time and not turns (start-time fair queueing, P. Goyal et al. 1996). Who did not ask for a while has saved nothing up.
type Share struct {
	mu      sync.Mutex
	free    int
	members map[string]*Member
	waiting []*Member // with somebody in their queue
	clock   float64   // start of the Run that was begun last
}

// Member is one model's part in a Share.
type Member struct {
	share  *Share
	name   string
	weight float64
	joined int
	start  float64 // of its next Run, in nanoseconds over weight
	usual  float64 // nanoseconds that a Run of it takes, as far as known
	queue  []chan struct{}
}

// NewShare makes so many slots.
func NewShare(slots int) *Share { return &Share{free: slots, members: map[string]*Member{}} }

// Join makes the member with that name, or finds it: all versions and signatures of a model are one. The weight (at least 1) is that
// of the last who joined. Leave undoes it.
func (s *Share) Join(name string, weight int) *Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[name]
	if m == nil {
		m = &Member{share: s, name: name}
		s.members[name] = m
	}
	m.weight = float64(max(1, weight))
	m.joined++
	return m
}

// Leave is called once for every Join, when no slot is held or waited for any more.
func (m *Member) Leave() {
	m.share.mu.Lock()
	defer m.share.mu.Unlock()
	if m.joined--; m.joined == 0 {
		delete(m.share.members, m.name)
	}
}

// try takes a slot if one is free.
func (m *Member) try() bool {
	s := m.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 {
		return false
	}
	s.free--
	s.begin(m)
	return true
}

// begin charges a Run before it is run, by what one usually takes, so that a model with many callers does not get all slots before the
// first has been paid for.
func (s *Share) begin(m *Member) {
	m.start = max(m.start, s.clock)
	s.clock = m.start
	m.start += m.usual / m.weight
}

// acquire takes a slot, and waits for it on wake (of capacity 1, the caller's own) if it must.
func (m *Member) acquire(wake chan struct{}) {
	s := m.share
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.begin(m)
		s.mu.Unlock()
		return
	}
	if len(m.queue) == 0 {
		m.start = max(m.start, s.clock)
		s.waiting = append(s.waiting, m)
	}
	m.queue = append(m.queue, wake)
	s.mu.Unlock()
	<-wake
}

// release gives a slot back after a Run that took so long; 0: there was none.
func (m *Member) release(took time.Duration) {
	s := m.share
	s.mu.Lock()
	defer s.mu.Unlock()
	m.start += (float64(took) - m.usual) / m.weight
	if took > 0 {
		m.usual += (float64(took) - m.usual) / 8
	}
	if next := s.choose(); next >= 0 {
		s.grant(next)
	} else {
		s.free++
	}
}

// choose is the position of the waiting member that is next; -1 if nobody waits.
func (s *Share) choose() int {
	next := -1
	for i, m := range s.waiting {
		if next < 0 || m.start < s.waiting[next].start {
			next = i
		}
	}
	return next
}

func (s *Share) grant(position int) {
	m := s.waiting[position]
	wake := m.queue[0]
	m.queue = append(m.queue[:0], m.queue[1:]...)
	if len(m.queue) == 0 {
		s.waiting = append(s.waiting[:position], s.waiting[position+1:]...)
	}
	s.begin(m)
	wake <- struct{}{}
}
