package batch

// queue is what waits, one line for each class, each ordered by when its requests must be taken: their deadline, or Aging after they
// came, whichever is first. So it is first come, first served among those that are not in a hurry, and the earliest deadline among
// those that are.
//
// No line starves. Within a line a request is overtaken only by what must be taken before it, and nothing that comes later than Aging
// after it must. Between lines the higher goes first, but every fairTurn-th batch begins with a request of the lowest line that is left
// behind. It is one request, not the whole line, so that a long backlog of the lower class does not turn the order round.
//
// Lines are binary heaps (J. Williams 1964): what comes in the order of its keys, as it does mostly, costs one comparison to add.
type queue[T Payload] struct {
	lines [classes]line[T]
	size  int // parts, those whose client left among them
	next  uint64
}

const fairTurn = 8

type line[T Payload] []Part[T]

func (l line[T]) before(i, j int) bool {
	if l[i].key != l[j].key {
		return l[i].key < l[j].key
	}
	return l[i].number < l[j].number
}

func (q *queue[T]) push(class Class, part Part[T]) {
	part.number = q.next
	q.next++
	q.size++
	l := append(q.lines[class.line()], part)
	q.lines[class.line()] = l
	l.up(len(l) - 1)
}

func (l line[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !l.before(i, parent) {
			return
		}
		l[i], l[parent] = l[parent], l[i]
		i = parent
	}
}

func (l line[T]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(l); child++ {
			if l.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		l[i], l[least] = l[least], l[i]
		i = least
	}
}

// pop takes the first of a line.
func (q *queue[T]) pop(number int) Part[T] { return q.remove(number, 0) }

func (q *queue[T]) remove(number, at int) Part[T] {
	l := q.lines[number]
	last := len(l) - 1
	part := l[at]
	l[at] = l[last]
	l[last] = Part[T]{}
	l = l[:last]
	q.lines[number] = l
	q.size--
	if at < last {
		l.down(at)
		l.up(at)
	}
	return part
}

// last finds the part of a line that would be taken last, among those whose request is whole and wanted; -1 if there is none.
func (l line[T]) last() int {
	found := -1
	for i := range l {
		if l[i].job.whole() && (found < 0 || l.before(found, i)) {
			found = i
		}
	}
	return found
}

// whole says that a job waits with all of its rows, and that somebody waits for it.
func (j *job) whole() bool { return j.gone == nil && j.queued == j.rows }

// ahead counts the rows of a line, and the requests, that are taken no later than what must be taken at key.
func (l line[T]) ahead(key int64) (rows, requests int) {
	for i := range l {
		if l[i].key <= key && l[i].job.gone == nil {
			rows += l[i].Rows
			requests++
		}
	}
	return rows, requests
}

// sweep removes what nobody waits for any more.
func (q *queue[T]) sweep() (swept []Part[T]) {
	for number, l := range q.lines {
		kept := l[:0]
		for _, part := range l {
			if part.job.gone != nil {
				swept = append(swept, part)
			} else {
				kept = append(kept, part)
			}
		}
		clear(l[len(kept):])
		for i := len(kept)/2 - 1; i >= 0; i-- {
			kept.down(i)
		}
		q.lines[number] = kept
	}
	q.size -= len(swept)
	return swept
}
