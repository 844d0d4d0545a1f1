package modelconfig

import "fmt"

// Traffic says how requests that ask for no version in particular are shared between a model's versions. It has a file of its own,
// in the same format, so that the model config file stays one that TF-Serving reads:
//
//	traffic {
//	  model: "digits"
//	  split { label: "stable" weight: 95 }
//	  split { version: 7 weight: 5 }
//	  shadow { version: 8 percent: 10 }   # copies; nobody sees the answers
//	}
type Traffic struct {
	Model  string
	Split  []Share
	Shadow *Share // nil: none
}

// Share is a part of the traffic. The version is Version, or what Label points at if that is not empty.
type Share struct {
	Version int64
	Label   string
	Weight  int // in a split: of the sum of all weights; of a shadow: percent
}

// ParseTraffic reads a traffic file.
func ParseTraffic(file, text string) ([]Traffic, error) {
	s, all := source{file}, []Traffic(nil)
	nodes, err := parse(file, text)
	if err != nil {
		return nil, err
	}
	err = s.visit("the traffic config", nodes, "traffic", map[string]check{
		"traffic": s.inside(func(n *node) error {
			t := Traffic{}
			err := s.visit("traffic", n.children, "split", map[string]check{
				"model":  s.text(&t.Model),
				"split":  s.inside(func(n *node) error { return s.split(n, &t) }),
				"shadow": s.inside(func(n *node) error { return s.shadow(n, &t) }),
			})
			if err != nil {
				return err
			}
			if t.Model == "" {
				return s.fail(n, "traffic names no model")
			}
			for _, other := range all {
				if other.Model == t.Model {
					return s.fail(n, "there is another traffic for the model %q", t.Model)
				}
			}
			all = append(all, t)
			return t.sum(s, n)
		}),
	})
	return all, err
}

func (t *Traffic) sum(s source, n *node) error {
	sum := 0
	for _, share := range t.Split {
		sum += share.Weight
	}
	if len(t.Split) > 0 && sum == 0 {
		return s.fail(n, "every split of the model %q has weight 0", t.Model)
	}
	return nil
}

func (s source) split(n *node, t *Traffic) error {
	share, err := s.share(n, "weight", 1_000_000, -1)
	t.Split = append(t.Split, share)
	return err
}

func (s source) shadow(n *node, t *Traffic) error {
	share, err := s.share(n, "percent", 100, 100)
	t.Shadow = &share
	return err
}

// share reads a version or a label, and how much; usual is what is meant if the file does not say, -1 if it must.
func (s source) share(n *node, unit string, most, usual int64) (Share, error) {
	share, version, amount := Share{}, int64(-1), usual
	err := s.visit(n.name, n.children, "", map[string]check{
		"version": s.number(&version, 0, highest), "label": s.text(&share.Label), unit: s.number(&amount, 0, most),
	})
	switch {
	case err != nil:
		return share, err
	case (version < 0) == (share.Label == ""):
		return share, s.fail(n, "%s needs a version or a label, and not both", n.name)
	case amount < 0:
		return share, s.fail(n, "%s needs a %s", n.name, unit)
	}
	share.Version, share.Weight = max(version, 0), int(amount)
	return share, nil
}

// Target is the share's version as people write it.
func (s Share) Target() string {
	if s.Label != "" {
		return "label " + s.Label
	}
	return fmt.Sprintf("version %d", s.Version)
}
