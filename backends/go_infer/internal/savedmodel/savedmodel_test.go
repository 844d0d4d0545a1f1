package savedmodel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluicegate/go_infer/internal/testmodels"
)

const shardFile = "variables/variables.data-00000-of-00001"

// spoil copies a real version and lets change damage the copy.
func spoil(t *testing.T, change func(directory string) error) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "1")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(testmodels.Directory(t), "digits/1"))); err != nil {
		t.Fatal(err)
	}
	if err := change(copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

func write(name, content string) func(string) error {
	return func(directory string) error {
		return os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600)
	}
}

// edit changes one byte of a file, counted from the end if at is negative.
func edit(name string, at int) func(string) error {
	return func(directory string) error {
		path := filepath.Join(directory, name)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[(at+len(content))%len(content)] ^= 0x55
		return os.WriteFile(path, content, 0o600)
	}
}

func cut(name string, off int64) func(string) error {
	return func(directory string) error {
		info, err := os.Stat(filepath.Join(directory, name))
		if err != nil {
			return err
		}
		return os.Truncate(filepath.Join(directory, name), info.Size()-off)
	}
}

func unpaused(time.Duration) {}

// manifest writes one over all files, and then lets change damage the copy.
func manifest(change func(string) error) func(string) error {
	return func(directory string) error {
		var lines strings.Builder
		err := filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			sum, err := digest(path, unpaused)
			name, _ := filepath.Rel(directory, path)
			fmt.Fprintf(&lines, "%s  ./%s\n", sum, name)
			return err
		})
		if err := errors.Join(err, write(ManifestFile, lines.String())(directory)); err != nil {
			return err
		}
		return change(directory)
	}
}

func TestWhatIsNotWholeIsRefusedWithTheReason(t *testing.T) {
	remove := func(name string) func(string) error {
		return func(directory string) error { return os.RemoveAll(filepath.Join(directory, name)) }
	}
	nothing := func(string) error { return nil }
	for _, c := range []struct {
		name   string
		change func(string) error
		says   string // "": it is whole
	}{
		{"a whole one", nothing, ""},
		{"with a manifest", manifest(nothing), ""},
		{"no graph", remove("saved_model.pb"), "saved_model.pb is missing: not a SavedModel, or not copied completely"},
		{"an empty graph", write("saved_model.pb", ""), "saved_model.pb is empty: not copied completely"},
		{"a graph cut short by a byte", cut("saved_model.pb", 1), "saved_model.pb: truncated or corrupted"},
		{"another file as graph", write("saved_model.pb", "\x08\x01"), "saved_model.pb: it holds no graph"},
		{"missing variables", remove("variables"), "variables/variables.index is missing"},
		{"missing index", remove("variables/variables.index"), "variables/variables.index is missing"},
		{"missing shard", remove(shardFile), "variables/variables.data-* is missing"},
		{"a shard cut short by a byte", cut(shardFile, 1), shardFile + " has "},
		{"one of two shards", func(directory string) error {
			return os.Rename(filepath.Join(directory, shardFile), filepath.Join(directory, "variables/variables.data-00000-of-00002"))
		}, shardFile + " is missing: the index speaks of 1 shards"},
		{"an index cut short by a byte", cut("variables/variables.index", 1), "variables/variables.index: it does not end as an index does"},
		{"an index with a wrong byte", edit("variables/variables.index", 20), "variables/variables.index: the checksum of a block is wrong"},
		{"an index with a wrong end", edit("variables/variables.index", -1), "variables/variables.index: it does not end as an index does"},
		{"a manifest, one byte of a shard wrong", manifest(edit(shardFile, 7)), shardFile + " is not what manifest.sha256 says"},
		{"a manifest, a file missing", manifest(remove("assets.extra")), "assets.extra/sluicegate.json is missing: manifest.sha256 lists it"},
		{"a manifest, a file too many", manifest(write("more", "x")), "more is not listed in manifest.sha256"},
		{"an empty manifest", write(ManifestFile, ""), "manifest.sha256 lists nothing"},
		{"no manifest", write(ManifestFile, "hello\n"), "manifest.sha256:1: not a line of sha256sum"},
		{"a manifest that climbs out", write(ManifestFile, strings.Repeat("0", 64)+"  ../x\n"), "manifest.sha256:1: not a line of sha256sum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Complete(spoil(t, c.change), unpaused)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v\nwant %s", err, c.says)
			}
		})
	}
}

func TestTheIndexTellsWhereTheVariablesEnd(t *testing.T) {
	directory := filepath.Join(testmodels.Directory(t), "digits/1")
	found, err := readBundle(filepath.Join(directory, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(directory, shardFile))
	if err != nil {
		t.Fatal(err)
	}
	if found.shards != 1 || found.variables < 4 || found.ends[0] != info.Size() {
		t.Errorf("%+v; the shard has %d bytes", found, info.Size())
	}
}

func TestAPrintTellsEveryChange(t *testing.T) {
	directory := spoil(t, func(string) error { return nil })
	before, err := Look(directory)
	if err != nil || before.Bytes < 1000 || time.Since(before.Changed) > time.Minute {
		t.Fatalf("%+v, %v", before, err)
	}
	if again, _ := Look(directory); again != before {
		t.Error("nothing changed, and the print did")
	}
	for _, change := range []func(string) error{
		write("more", "x"), edit("more", 0), cut(shardFile, 1), func(d string) error { return os.Remove(filepath.Join(d, "more")) },
		func(d string) error { return os.Chtimes(filepath.Join(d, shardFile), time.Unix(0, 0), time.Unix(0, 0)) },
	} {
		if err := change(directory); err != nil {
			t.Fatal(err)
		}
		after, err := Look(directory)
		if err != nil || after == before {
			t.Errorf("a change was not told: %+v, %v", after, err)
		}
		before = after
	}
	if _, err := Look(filepath.Join(directory, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
}

// mask is what TFRecord does to checksums.
func mask(sum uint32) uint32 { return (sum>>15 | sum<<17) + 0xa282ead8 }

// record frames bytes as TFRecord does.
func record(content []byte) []byte {
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(content)))
	head = binary.LittleEndian.AppendUint32(head, mask(crc32.Checksum(head[:8], castagnoli)))
	return binary.LittleEndian.AppendUint32(append(head, content...), mask(crc32.Checksum(content, castagnoli)))
}

// nested writes messages of one field each, outermost field first.
func nested(content []byte, fields ...byte) []byte {
	for i := len(fields) - 1; i >= 0; i-- {
		content = append([]byte{fields[i]<<3 | 2, byte(len(content))}, content...)
	}
	return content
}

func TestRecordedRequestsAreReadAndDamageIsNoticed(t *testing.T) {
	entry := append(nested([]byte("x"), 1), nested([]byte("TENSOR"), 2)...)
	predict := record(nested(append(nested([]byte("sig"), 1, 3), nested(entry, 2)...), 6, 1))
	classify := record(nested(nested([]byte("EXAMPLE"), 2, 1, 1), 2, 1))
	context := record(nested(nested(append(nested([]byte("E"), 1), nested([]byte("C"), 2)...), 2, 2), 3, 1))
	tasks := record(nested(append(append(nested([]byte("a"), 1, 1, 3), nested([]byte("b"), 1, 1, 3)...), nested([]byte("E"), 2, 1, 1)...), 4, 1))
	flipped := bytes.Clone(predict)
	flipped[20] ^= 1
	long := bytes.Clone(predict)
	long[0] ^= 1
	for _, c := range []struct {
		name    string
		content []byte
		want    string
		says    string
	}{
		{"none", nil, "", ""},
		{"predict", predict, "[{sig map[x:TENSOR] []}]", ""},
		{"classify and regress with context", append(bytes.Clone(classify), context...), "[{ map[] [EXAMPLE]} { map[] [CE]}]", ""},
		{"multi-inference", tasks, "[{a map[] [E]} {b map[] [E]}]", ""},
		{"a wrong byte", flipped, "", "record 0: its checksum is wrong: corrupted"},
		{"a wrong length", long, "", "record 0: the checksum of its length is wrong"},
		{"cut in the head", predict[:5], "", "record 0: truncated"},
		{"cut in the second", append(bytes.Clone(predict), predict[:len(predict)-1]...), "[{sig map[x:TENSOR] []}]", "record 1: truncated"},
		{"no log", record([]byte{8, 1}), "", "record 0: it is no predict, classify, regress or multi-inference log"},
		{"as many as may be", bytes.Repeat(predict, MostWarmups), "many", ""},
		{"one more", bytes.Repeat(predict, MostWarmups+1), "many", "more than 1000 records"},
	} {
		t.Run(c.name, func(t *testing.T) {
			directory := t.TempDir()
			if err := errors.Join(os.Mkdir(filepath.Join(directory, "assets.extra"), 0o750), write(WarmupFile, string(c.content))(directory)); err != nil {
				t.Fatal(err)
			}
			var got []Warmup
			err := Warmups(directory, func(w Warmup) error {
				got = append(got, w)
				return nil
			})
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v\nwant %s", err, c.says)
			}
			text := fmt.Sprintf("%s", got)
			if c.want == "many" {
				if len(got) != MostWarmups {
					t.Errorf("%d were run", len(got))
				}
			} else if text != "["+strings.Trim(c.want, "[]")+"]" && text != c.want {
				t.Errorf("got %s\nwant %s", text, c.want)
			}
		})
	}
}

func FuzzBundle(f *testing.F) {
	if content, err := os.ReadFile(filepath.Join(testmodels.Directory(f), "digits/1", indexFile)); err == nil {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, table []byte) {
		path := filepath.Join(t.TempDir(), "index")
		if err := os.WriteFile(path, table, 0o600); err != nil {
			t.Fatal(err)
		}
		if found, err := readBundle(path); err == nil && found.shards < 1 {
			t.Error("an index without shards")
		}
	})
}
