package pb

import (
	_ "embed"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "sluicegate/go_infer/internal/pb/inference"
	_ "sluicegate/go_infer/internal/pb/serving"
)

//go:embed descriptors.binpb
var descriptors []byte

// plain drops what does not change a message: options of languages, and the JSON names, which protoc makes up.
func plain(file *descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto {
	file = proto.Clone(file).(*descriptorpb.FileDescriptorProto)
	file.Options, file.SourceCodeInfo = nil, nil
	var messages func([]*descriptorpb.DescriptorProto)
	messages = func(all []*descriptorpb.DescriptorProto) {
		for _, message := range all {
			for _, field := range message.Field {
				field.JsonName = nil
			}
			messages(message.NestedType)
		}
	}
	messages(file.MessageType)
	return file
}

func TestTheGeneratedCodeIsThatOfTheDescriptors(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(descriptors, set); err != nil || len(set.File) < 40 {
		t.Fatal(len(set.File), err)
	}
	for _, file := range set.File {
		if strings.HasPrefix(file.GetName(), "google/") {
			continue
		}
		generated, err := protoregistry.GlobalFiles.FindFileByPath(file.GetName())
		if err != nil {
			t.Errorf("%s: not generated: run python -m backends.protos", file.GetName())
			continue
		}
		if !proto.Equal(plain(protodesc.ToFileDescriptorProto(generated)), plain(file)) {
			t.Errorf("%s: the generated code is of another version: run python -m backends.protos", file.GetName())
		}
	}
}
