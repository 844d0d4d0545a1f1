package image

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// python runs a script that needs Pillow and numpy; without them the test is skipped.
func python(t *testing.T, arguments ...string) {
	t.Helper()
	interpreter := os.Getenv("SLUICEGATE_PYTHON") // of the environment with the extra `models`
	if interpreter == "" {
		interpreter = "python3"
	}
	if exec.Command(interpreter, "-c", "import PIL, numpy").Run() != nil {
		t.Skipf("%s has no Pillow and numpy; set SLUICEGATE_PYTHON to one that has", interpreter)
	}
	if output, err := exec.Command(interpreter, append([]string{"-W", "ignore"}, arguments...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

// numbers reads a row of a tensor as float64.
func numbers(how *Preprocess, row []byte) []float64 {
	var all []float64
	for i := 0; i < len(row); {
		switch how.DType {
		case "uint8":
			all = append(all, float64(row[i]))
			i++
		case "float16":
			all = append(all, fromHalf(binary.LittleEndian.Uint16(row[i:])))
			i += 2
		default:
			all = append(all, float64(math.Float32frombits(binary.LittleEndian.Uint32(row[i:]))))
			i += 4
		}
	}
	return all
}

func TestTensorsAreThoseOfPillowAndNumpy(t *testing.T) {
	directory := t.TempDir()
	python(t, "testdata/reference.py", directory)
	content, err := os.ReadFile(filepath.Join(directory, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Picture    string
		Preprocess json.RawMessage
		Tensor     string
		Any, Mean  float64
	}
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	worst := map[float64]float64{}
	for _, c := range cases {
		how := &Preprocess{}
		if err := json.Unmarshal(c.Preprocess, how); err != nil {
			t.Fatal(err)
		}
		file, _ := os.ReadFile(filepath.Join(directory, c.Picture))
		want, _ := os.ReadFile(filepath.Join(directory, c.Tensor))
		picture, err := Decode(context.Background(), file, 1<<20)
		if err != nil {
			t.Errorf("%s: %v", c.Picture, err)
			continue
		}
		row := make([]byte, how.Size())
		picture.Write(how, row)
		got := numbers(how, row)
		if len(got) != len(want)/8 {
			t.Fatalf("%s: %d numbers, want %d", c.Picture, len(got), len(want)/8)
		}
		level := (how.Range[1] - how.Range[0]) / 255 * how.Scale[0]
		largest, sum := 0., 0.
		for i := range got {
			difference := math.Abs(got[i]-math.Float64frombits(binary.LittleEndian.Uint64(want[8*i:]))) / level
			largest, sum = max(largest, difference), sum+difference
		}
		worst[c.Any] = max(worst[c.Any], largest)
		if mean := sum / float64(len(got)); largest > c.Any || mean > c.Mean || math.IsNaN(sum) {
			t.Errorf("%s %s: differs by up to %.3f and %.4f in the mean; at most %v and %v are allowed",
				c.Picture, c.Preprocess, largest, mean, c.Any, c.Mean)
		}
	}
	t.Logf("%d cases; largest differences in levels of 255, by tolerance: %.4v", len(cases), worst)
}
