package otlp

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Environment reads what OpenTelemetry's standard variables say; false if they do not ask for an export. flags go before variables: an
// endpoint (to which /v1/traces is appended, as to OTEL_EXPORTER_OTLP_ENDPOINT) and headers, each empty if not given.
// Source: opentelemetry.io/docs/specs/otel/protocol/exporter and .../configuration/sdk-environment-variables.
func Environment(getenv func(string) string, endpoint, headers string) (Options, bool, error) {
	o := Options{}
	of := func(name string) (value, from string) { // what is said of traces goes before what is said of everything
		for _, kind := range []string{"TRACES_", ""} {
			from = "OTEL_EXPORTER_OTLP_" + kind + name
			if value = getenv(from); value != "" {
				return value, from
			}
		}
		return "", ""
	}
	if endpoint == "" && (strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none") {
		return o, false, nil
	}
	from := "--otlp_endpoint"
	if endpoint == "" {
		if endpoint, from = of("ENDPOINT"); endpoint == "" {
			return o, false, nil
		}
	}
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return o, false, fmt.Errorf("%s must be a URL like http://collector:4318", from)
	}
	if from != "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" {
		parsed = parsed.JoinPath("v1/traces")
	}
	o.Endpoint = parsed.String()
	if protocol, from := of("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return o, false, fmt.Errorf("%s=%s: only http/protobuf is spoken", from, protocol)
	}
	from = "--otlp_headers"
	if headers == "" {
		headers, from = of("HEADERS")
	}
	if o.Headers, err = pairs(headers); err != nil {
		return o, false, fmt.Errorf("%s: %w", from, err)
	}
	if o.Resource, err = pairs(getenv("OTEL_RESOURCE_ATTRIBUTES")); err != nil {
		return o, false, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if name := getenv("OTEL_SERVICE_NAME"); name != "" {
		o.Resource["service.name"] = name
	}
	if o.Resource["service.name"] == "" {
		o.Resource["service.name"] = "go_infer"
	}
	switch compression, from := of("COMPRESSION"); compression {
	case "gzip":
		o.Gzip = true
	case "", "none":
	default:
		return o, false, fmt.Errorf("%s=%s: there are gzip and none", from, compression)
	}
	timeout, from := of("TIMEOUT")
	if o.Timeout, err = milliseconds(from, timeout); err != nil {
		return o, false, err
	}
	if o.Every, err = milliseconds("OTEL_BSP_SCHEDULE_DELAY", getenv("OTEL_BSP_SCHEDULE_DELAY")); err != nil {
		return o, false, err
	}
	for name, field := range map[string]*int{"OTEL_BSP_MAX_QUEUE_SIZE": &o.Queue, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": &o.Batch} {
		if text := getenv(name); text != "" {
			if *field, err = strconv.Atoi(text); err != nil || *field < 1 || *field > 1<<20 {
				return o, false, fmt.Errorf("%s=%s is out of range; it must be 1..%d", name, text, 1<<20)
			}
		}
	}
	if file, from := of("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file) // #nosec G304 -- the operator names it
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			return o, false, fmt.Errorf("%s=%s has no certificate: %v", from, file, err)
		}
		o.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return o, true, nil
}

func milliseconds(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 3_600_000 {
		return 0, fmt.Errorf("%s=%s is out of range; it must be 1..3600000 milliseconds", name, text)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// pairs reads KEY=VALUE,KEY=VALUE with values in percent-encoding. Its errors do not quote values, which may be secret.
func pairs(text string) (map[string]string, error) {
	all := map[string]string{}
	for each := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(each) == "" {
			continue
		}
		key, value, found := strings.Cut(each, "=")
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !found || key == "" || err != nil || strings.ContainsAny(key+decoded, "\r\n\x00") {
			return nil, fmt.Errorf("it must be KEY=VALUE,KEY=VALUE with values in percent-encoding")
		}
		all[key] = decoded
	}
	return all, nil
}
