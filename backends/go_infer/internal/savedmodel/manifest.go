package savedmodel

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ManifestFile is optional: lines as sha256sum writes them, made with
//
//	cd VERSION && find . -type f ! -name manifest.sha256 -exec sha256sum {} + > manifest.sha256
//
// A version that has one is served only if every file that it lists is there with that content, and none is there that it does not list.
const ManifestFile = "manifest.sha256"

func checkManifest(directory string, pause func(worked time.Duration)) error {
	file, err := os.Open(filepath.Join(directory, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	listed := map[string]bool{ManifestFile: true}
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		sum, name, found := strings.Cut(lines.Text(), " ")
		name = filepath.Clean(strings.TrimLeft(name, " *"))
		if raw, err := hex.DecodeString(sum); !found || err != nil || len(raw) != sha256.Size || !filepath.IsLocal(name) {
			return fmt.Errorf("%s:%d: not a line of sha256sum (64 hexadecimal digits, two spaces, a file below this directory)", ManifestFile, number)
		}
		listed[name] = true
		switch is, err := digest(filepath.Join(directory, name), pause); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s is missing: %s lists it; not copied completely", name, ManifestFile)
		case err != nil:
			return err
		case !strings.EqualFold(is, sum):
			return fmt.Errorf("%s is not what %s says: its sha256 is %s...; not copied completely, or corrupted", name, ManifestFile, is[:12])
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", ManifestFile, err)
	}
	if len(listed) == 1 {
		return fmt.Errorf("%s lists nothing: not copied completely", ManifestFile)
	}
	var strangers []string
	err = walk(directory, func(path string, info fs.FileInfo) error {
		name, err := filepath.Rel(directory, path)
		if err == nil && info.Mode().IsRegular() && !listed[name] {
			strangers = append(strangers, name)
		}
		return err
	})
	if err == nil && len(strangers) > 0 {
		slices.Sort(strangers)
		return fmt.Errorf("%s is not listed in %s", strangers[0], ManifestFile)
	}
	return err
}

// piece is how much is read and hashed between two pauses; about 0.1 ms.
const piece = 128 << 10

func digest(path string, pause func(worked time.Duration)) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum, buffer := sha256.New(), make([]byte, piece)
	for {
		began := time.Now()
		n, err := file.Read(buffer)
		sum.Write(buffer[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		pause(time.Since(began))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
