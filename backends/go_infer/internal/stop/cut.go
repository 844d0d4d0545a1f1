package stop

// Cut is whom a drain has cut off.
type Cut struct {
	Arriving  int64 // requests that had not arrived at the Cutoff: they were refused
	Answering int64 // requests whose answers had not left when the drain's time was up
}

// Plus is both together.
func (c Cut) Plus(other Cut) Cut {
	return Cut{c.Arriving + other.Arriving, c.Answering + other.Answering}
}
