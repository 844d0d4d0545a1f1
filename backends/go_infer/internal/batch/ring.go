package batch

// ring is a first-in first-out queue that grows by doubling and never allocates in steady state.
type ring[T Payload] struct {
	items []Part[T]
	head  int
	size  int
}

func (r *ring[T]) at(i int) *Part[T] { return &r.items[(r.head+i)&(len(r.items)-1)] }

func (r *ring[T]) push(part Part[T]) {
	if r.size == len(r.items) {
		r.grow()
	}
	r.size++
	*r.at(r.size - 1) = part
}

func (r *ring[T]) pop() Part[T] {
	first := r.at(0)
	part := *first
	*first = Part[T]{}
	r.head = (r.head + 1) & (len(r.items) - 1)
	r.size--
	return part
}

func (r *ring[T]) grow() {
	items := make([]Part[T], max(16, 2*len(r.items)))
	for i := range r.size {
		items[i] = *r.at(i)
	}
	r.items, r.head = items, 0
}
