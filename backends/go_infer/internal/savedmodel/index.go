package savedmodel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"

	"sluicegate/go_infer/internal/wire"
)

// The variables of a SavedModel are a tensor bundle: an index, which is a table of LevelDB's format, and data shards. The index says
// where each variable lies, so it tells how large the shards must be.
// Sources: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/lib/io/format.cc, LevelDB's table_format.md.

const (
	tableMagic   = 0xdb4775248b80fb57
	footerBytes  = 48
	trailerBytes = 5 // compression type and checksum, after each block
	largestIndex = 1 << 30
)

// bundle is what an index says.
type bundle struct {
	shards    int
	ends      map[int]int64 // shard: end of the last variable in it
	variables int
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// unmask undoes what LevelDB and TFRecord do to checksums that are stored beside what they protect.
func unmask(masked uint32) uint32 {
	rotated := masked - 0xa282ead8
	return rotated>>17 | rotated<<15
}

var errCompressed = errors.New("the index is compressed")

// readBundle reads variables.index. An index that is compressed, which TensorFlow does not do, is errCompressed.
func readBundle(path string) (*bundle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > largestIndex {
		return nil, fmt.Errorf("%d bytes is too large for an index", info.Size())
	}
	table, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(table) < footerBytes || binary.LittleEndian.Uint64(table[len(table)-8:]) != tableMagic {
		return nil, errors.New("it does not end as an index does: truncated or corrupted")
	}
	footer := table[len(table)-footerBytes : len(table)-8]
	for range 2 { // the handle of the meta index comes first
		_, n := binary.Uvarint(footer)
		if n <= 0 {
			return nil, errCorrupted
		}
		footer = footer[n:]
	}
	blocks, err := block(table, footer)
	if err != nil {
		return nil, err
	}
	found := &bundle{ends: map[int]int64{}}
	err = entries(blocks, func(_, handle []byte) error {
		content, err := block(table, handle)
		if err != nil {
			return err
		}
		return entries(content, found.add)
	})
	if err == nil && found.shards == 0 {
		err = errors.New("it has no header: corrupted")
	}
	return found, err
}

var errCorrupted = errors.New("it is corrupted")

// block finds the block that a handle (offset and size, varints) points at, and checks it.
func block(table, handle []byte) ([]byte, error) {
	offset, n := binary.Uvarint(handle)
	if n <= 0 {
		return nil, errCorrupted
	}
	size, m := binary.Uvarint(handle[n:])
	if m <= 0 || size > uint64(len(table)) || offset > uint64(len(table))-size || offset+size+trailerBytes > uint64(len(table)) {
		return nil, errCorrupted
	}
	content, trailer := table[offset:offset+size], table[offset+size:]
	if unmask(binary.LittleEndian.Uint32(trailer[1:])) != crc32.Checksum(table[offset:offset+size+1], castagnoli) {
		return nil, errors.New("the checksum of a block is wrong: corrupted")
	}
	if trailer[0] != 0 {
		return nil, errCompressed
	}
	return content, nil
}

// entries calls visit for each key and value of a block, whose keys share prefixes.
func entries(block []byte, visit func(key, value []byte) error) error {
	if len(block) < 4 {
		return errCorrupted
	}
	restarts := uint64(binary.LittleEndian.Uint32(block[len(block)-4:]))
	if restarts*4+4 > uint64(len(block)) {
		return errCorrupted
	}
	block = block[:uint64(len(block))-restarts*4-4]
	var key []byte
	for len(block) > 0 {
		var lengths [3]uint64 // shared with the key before, own, value's
		for i := range lengths {
			length, n := binary.Uvarint(block)
			if n <= 0 || length > math.MaxInt32 {
				return errCorrupted
			}
			lengths[i], block = length, block[n:]
		}
		if lengths[0] > uint64(len(key)) || lengths[1]+lengths[2] > uint64(len(block)) {
			return errCorrupted
		}
		key = append(key[:lengths[0]], block[:lengths[1]]...)
		value := block[lengths[1] : lengths[1]+lengths[2]]
		block = block[lengths[1]+lengths[2]:]
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// add reads BundleHeaderProto (num_shards 1), whose key is empty, or BundleEntryProto (shard_id 3, offset 4, size 5).
func (b *bundle) add(key, value []byte) error {
	var numbers [6]uint64
	err := wire.Fields(value, func(number int, value uint64, _ []byte) error {
		if number < len(numbers) {
			numbers[number] = value
		}
		return nil
	})
	switch {
	case err != nil:
		return errCorrupted
	case len(key) == 0:
		if b.shards = int(numbers[1]); numbers[1] < 1 || numbers[1] > mostFiles {
			return errCorrupted
		}
		return nil
	case numbers[4] > math.MaxInt64/2 || numbers[5] > math.MaxInt64/2 || numbers[3] >= mostFiles:
		return errCorrupted
	}
	b.variables++
	shard := int(numbers[3])
	b.ends[shard] = max(b.ends[shard], int64(numbers[4]+numbers[5]))
	return nil
}
