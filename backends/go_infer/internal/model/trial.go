package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sluicegate/go_infer/internal/batch"
	"sluicegate/go_infer/internal/status"
	"sluicegate/go_infer/internal/tensor"
)

// The trial finds out, when a model is loaded, whether a signature whose shapes are those of rows treats them one by one: a sum over the
// rows, a normalisation by the batch, a filter of rows do not, and then requests that share a Run, are padded or divided get other
// answers than by themselves. It runs rows alone, and then together and padded, and compares: rows of the requests that the version
// brings along to be warmed with, if they are two different ones at least, else made-up ones. What it costs is ten Runs of one to four
// rows, less than warming does.
//
// What it cannot tell: outputs that differ between two Runs of the same row (random ones) are not compared, and a dependency that shows
// only in content that is neither recorded nor made up is not seen. For those there is "batching" in the declaration. Numbers are compared within 1 % and
// half a percent of the output's largest: batches of other sizes are computed in another order, and often in 16 bits.

// verdict is what a trial found.
type verdict struct {
	apart string // why requests must not share a Run; empty: they may
	tried bool   // some content was taken
}

// trial is to be called before anything else is run.
func (r *runner) trial() (verdict, error) {
	found := verdict{}
	r.content = nothing
	for _, kind := range r.kinds() {
		if kind == nothing && found.tried {
			break
		}
		apart, taken, err := r.try(kind)
		if errors.Is(err, errLate) {
			found.tried, found.apart = true, "whether its rows are independent was not found out in the time there is for warming"
			break
		}
		if err != nil {
			return found, err
		}
		if !taken {
			continue
		}
		if !found.tried {
			found.tried, r.content = true, kind
		}
		if found.apart == "" {
			found.apart = apart
		}
		if kind == rows(r.recorded) && len(r.recorded.rows) > 1 {
			break
		}
	}
	if !found.tried && r.signature.Open() {
		found.apart = "it takes no made-up rows, and its outputs may be as wide as their content says"
	}
	return found, nil
}

// kinds are the kinds of content there are, the likeliest to be taken first.
func (r *runner) kinds() []rows {
	all := []rows{signed, positive, nothing}
	if r.recorded != nil {
		all = append([]rows{r.recorded}, all...)
	}
	return all
}

// try runs one kind of content; false if the model does not take it.
func (r *runner) try(kind rows) (apart string, taken bool, err error) {
	const different = 3
	var alone [different + 1]*Request // the last is the first again
	defer func() {
		for _, each := range alone {
			if each != nil {
				each.Release()
			}
		}
	}()
	for i := range alone {
		if alone[i], err = r.sample(kind, i%different); err != nil {
			return "", false, refusedContent(err)
		}
	}
	together, err := r.sample(kind, 0, 1, 2, 2)
	if err != nil {
		if other := refusedContent(err); other != nil {
			return "", false, other
		}
		return fmt.Sprintf("it takes one row but not four: %v", err), true, nil
	}
	defer together.Release()
	for output := range r.signature.Outputs {
		alias := r.signature.Outputs[output].Alias
		value := &together.Out[output]
		if len(value.Dims) == 0 || value.Dims[0] != 4 {
			return fmt.Sprintf("output %q has not one row per input row", alias), true, nil
		}
		if slices.ContainsFunc(alone[:], func(r *Request) bool { return len(r.Out[output].Dims) == 0 || r.Out[output].Dims[0] != 1 }) {
			return fmt.Sprintf("output %q has not one row per input row", alias), true, nil
		}
		if !same(&alone[0].Out[output], 0, &alone[different].Out[output], 0) {
			continue // it is random
		}
		for row := range 4 {
			if !same(value, row, &alone[min(row, different-1)].Out[output], 0) {
				return fmt.Sprintf("output %q of a row depends on the rows beside it", alias), true, nil
			}
		}
	}
	return "", true, nil
}

// refusedContent is nil if that is what an error says, else the error.
func refusedContent(err error) error {
	if ofContent[status.From(err).Code] {
		return nil
	}
	return err
}

// sample runs rows as one request, as it is.
func (r *runner) sample(kind rows, numbers ...int) (*Request, error) {
	if r.late() {
		return nil, errLate
	}
	request, err := kind.make(r.signature, r.pool, numbers)
	if err != nil {
		return nil, err
	}
	if err := r.once(0, []batch.Part[*Request]{{Payload: request, Rows: len(numbers)}}, false); err != nil {
		request.Release()
		return nil, err
	}
	return request, nil
}

// errLate says that there is no more time for made-up rows: a model may run for as long as their numbers say.
var errLate = errors.New("the time for warming is over")

func (r *runner) late() bool { return !r.until.IsZero() && time.Now().After(r.until) }

// part has the signature's requests run one by one, and says why.
func (r *runner) part(why string) {
	r.signature.Apart = why
	r.apart.Store(true)
	r.limits.Coalesce = false
	r.tell(fmt.Sprintf("signature %q is not batched, padded or divided: %s", r.signature.Name, why))
}

// same says whether row i of a is row j of b, about.
func same(a *tensor.Value, i int, b *tensor.Value, j int) bool {
	if a.Type != b.Type || !slices.Equal(a.Dims[1:], b.Dims[1:]) {
		return false
	}
	n := int(tensor.Elements(a.Dims[1:]))
	if a.Type == tensor.String {
		return slices.EqualFunc(a.Strings[i*n:(i+1)*n], b.Strings[j*n:(j+1)*n], slices.Equal)
	}
	number := numbers(a.Type)
	ours, theirs := a.Bytes(), b.Bytes()
	size := a.Type.Size()
	if number == nil {
		return slices.Equal(ours[i*n*size:(i+1)*n*size], theirs[j*n*size:(j+1)*n*size])
	}
	largest := 0.0
	for at := 0; at < len(ours); at += size {
		if x := math.Abs(number(ours[at:])); x > largest && !math.IsInf(x, 0) {
			largest = x
		}
	}
	for e := range n {
		x, y := number(ours[(i*n+e)*size:]), number(theirs[(j*n+e)*size:])
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		if !(math.Abs(x-y) <= .01*max(math.Abs(x), math.Abs(y))+.005*largest) || math.IsInf(x-y, 0) {
			return false
		}
	}
	return true
}

// numbers reads one element of a floating-point type; nil for the others, which are exact.
func numbers(dtype tensor.DType) func(bytes []byte) float64 {
	switch dtype {
	case tensor.Float32:
		return func(b []byte) float64 { return float64(tensor.Cast[float32](b[:4])[0]) }
	case tensor.Float64:
		return func(b []byte) float64 { return tensor.Cast[float64](b[:8])[0] }
	case tensor.Half:
		return func(b []byte) float64 { return tensor.HalfValue(tensor.Cast[uint16](b[:2])[0]) }
	case tensor.BFloat16:
		return func(b []byte) float64 { return tensor.BFloat16Value(tensor.Cast[uint16](b[:2])[0]) }
	}
	return nil
}

// ready decides how requests run, and warms: signatures whose inputs have known inner dimensions.
func (r *runner) ready(declared *Declaration, options Options) error {
	r.tell = options.Tell
	if options.MadeUp > 0 {
		r.until = time.Now().Add(options.MadeUp)
	}
	off, says := "", (*bool)(nil)
	if options.Apart != nil {
		off = options.Apart(r.signature.Name)
	}
	if declared != nil {
		says = declared.Batching.of(r.signature.Name)
	}
	if err := r.separate(says, off, !options.Trust); err != nil || !r.signature.Rowwise() {
		return err
	}
	if r.signature.Changes != "" {
		r.tell(fmt.Sprintf("signature %q is not warmed with made-up rows: its Runs change state (%s)", r.signature.Name, r.signature.Changes))
		return nil
	}
	if r.content == nil {
		r.choose()
	}
	return r.warm()
}

// choose finds content that the model takes, where no trial has; if there is none, warming will say so.
func (r *runner) choose() {
	for _, r.content = range r.kinds() {
		if request, err := r.sample(r.content, 0, 1, 2, 3); err == nil {
			request.Release()
			return
		}
	}
}

// separate decides, before a signature is served, whether its requests share Runs. declared is what the model says, nil if it says
// nothing; off is why an operator does not want it, empty if he does not mind; check: find out if nobody says.
func (r *runner) separate(declared *bool, off string, check bool) error {
	s := r.signature
	switch {
	case !s.Rowwise():
	case off != "":
		s.Apart = off
	case declared != nil && !*declared:
		s.Apart = DeclarationFile + " says so"
	case !r.limits.Coalesce:
		s.Apart = "batching is off"
	case declared == nil && check && s.Changes != "":
		r.part(fmt.Sprintf("its Runs change state (%s)", s.Changes))
	case declared == nil && check:
		found, err := r.trial()
		if err != nil {
			return err
		}
		switch {
		case found.apart != "":
			r.part(found.apart)
		case !found.tried:
			r.tell(fmt.Sprintf(`signature %q takes no made-up rows: it is not warmed, and that its rows are independent is only assumed; `+
				`if they are not, declare "batching": false`, s.Name))
		}
	}
	r.apart.Store(!s.Batchable())
	r.limits.Coalesce = s.Batchable()
	r.limits.Whole = s.Open()
	return nil
}
