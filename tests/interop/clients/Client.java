// java.net.http as a client, as it is without settings: it offers h2c with every request. What it prints is told in
// common.py.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;

public class Client {
    static String base;
    static String kept;
    static final byte[] large = new byte[5 * 1024 * 1024];
    static final HttpClient client = HttpClient.newHttpClient();

    static String digest(byte[] data) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    static String quoted(Object value) {
        if (value == null || value instanceof Number || value instanceof Boolean) return String.valueOf(value);
        if (value instanceof Raw raw) return raw.json();
        if (value instanceof List<?> list) return "[" + String.join(",", list.stream().map(Client::quoted).toList()) + "]";
        StringBuilder text = new StringBuilder("\"");
        for (char one : value.toString().toCharArray()) {
            if (one < ' ' || one > '~' || one == '"' || one == '\\') text.append(String.format("\\u%04x", (int) one));
            else text.append(one);
        }
        return text.append('"').toString();
    }

    /** JSON as it came. */
    record Raw(String json) {}

    static void tell(String name, Callable<Object[]> work) {
        Object[] seen;
        try {
            seen = work.call();
        } catch (Exception error) {
            error.printStackTrace();
            seen = new Object[] {"error", error};
        }
        StringBuilder line = new StringBuilder("{\"case\":" + quoted(name));
        for (int i = 0; i < seen.length; i += 2) line.append("," + quoted(seen[i]) + ":" + quoted(seen[i + 1]));
        System.out.println(line.append("}"));
    }

    static HttpRequest.Builder to(String url) {
        return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(20));
    }

    static HttpResponse<String> text(HttpRequest.Builder request) throws Exception {
        return client.send(request.build(), BodyHandlers.ofString());
    }

    static String header(HttpResponse<?> answer, String name) {
        return answer.headers().firstValue(name).orElse(null);
    }

    static Object[] upload(HttpRequest.Builder request, BodyPublisher body) throws Exception {
        HttpResponse<String> answer = text(request.POST(body));
        return new Object[] {"status", answer.statusCode(), "told", new Raw(answer.body())};
    }

    static BodyPublisher chunked() {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(large));
    }

    static Object[] download(String query) throws Exception {
        HttpResponse<byte[]> answer = client.send(to(base + "/o/large" + query).build(), BodyHandlers.ofByteArray());
        String length = header(answer, "content-length");
        return new Object[] {"status", answer.statusCode(), "sha256", digest(answer.body()), "length", length};
    }

    static Object[] keepAlive() throws Exception {
        List<Integer> statuses = new ArrayList<>();
        for (int i = 0; i < 6; i++) statuses.add(text(to(kept + "/o/hello")).statusCode());
        return new Object[] {"statuses", statuses};
    }

    static Object[] redirect() throws Exception {
        HttpResponse<String> first = text(to(base + "/o/redirect"));
        HttpClient follows = HttpClient.newBuilder().followRedirects(HttpClient.Redirect.NORMAL).build();
        HttpResponse<String> last = follows.send(to(base + "/o/redirect").build(), BodyHandlers.ofString());
        return new Object[] {"status", first.statusCode(), "location", header(first, "location"), "body", last.body()};
    }

    static Object[] earlyClose() throws Exception {
        var answer = client.send(to(base + "/o/endless").build(), BodyHandlers.ofInputStream());
        try (var body = answer.body()) {
            return new Object[] {"status", answer.statusCode(), "some", body.readNBytes(100_000).length > 0};
        }
    }

    static Object[] events() throws Exception {
        List<String> data = new ArrayList<>();
        List<Double> times = new ArrayList<>();
        var answer = client.send(to(base + "/o/events").build(), BodyHandlers.ofLines());
        answer.body().filter(line -> line.startsWith("data: ")).forEach(line -> {
            data.add(line.substring(6));
            times.add(System.nanoTime() / 1e9);
        });
        return new Object[] {
            "status", answer.statusCode(), "type", header(answer, "content-type"), "data", data, "times", times
        };
    }

    /** Puts messages together and hands on what came. */
    static class Listener implements WebSocket.Listener {
        final StringBuilder text = new StringBuilder();
        final ByteArrayOutputStream binary = new ByteArrayOutputStream();
        final CompletableFuture<String> texts = new CompletableFuture<>();
        final CompletableFuture<byte[]> binaries = new CompletableFuture<>();
        final CompletableFuture<String> pongs = new CompletableFuture<>();
        final CompletableFuture<Object[]> closed = new CompletableFuture<>();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            text.append(data);
            if (last) texts.complete(text.toString());
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
            byte[] some = new byte[data.remaining()];
            data.get(some);
            binary.writeBytes(some);
            if (last) binaries.complete(binary.toByteArray());
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onPong(WebSocket socket, ByteBuffer data) {
            pongs.complete(StandardCharsets.UTF_8.decode(data).toString());
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            closed.complete(new Object[] {"code", code, "reason", reason});
            return null;
        }
    }

    static WebSocket open(Listener listener, String... protocols) throws Exception {
        var builder = client.newWebSocketBuilder();
        if (protocols.length > 0) builder.subprotocols(protocols[0], protocols[1]);
        return within(builder.buildAsync(URI.create("ws" + base.substring(4) + "/ws"), listener));
    }

    static <T> T within(CompletableFuture<T> future) throws Exception {
        return future.get(5, TimeUnit.SECONDS);
    }

    static Object[] webSocket() throws Exception {
        Listener listener = new Listener();
        WebSocket socket = open(listener, "a", "echo");
        within(socket.sendText("grüße", true));
        String text = within(listener.texts);
        within(socket.sendBinary(ByteBuffer.wrap(large, 0, 500_000), true));
        String sum = digest(within(listener.binaries));
        within(socket.sendClose(4002, "enough"));
        within(listener.closed);
        return new Object[] {"protocol", socket.getSubprotocol(), "text", text, "sha256", sum};
    }

    static Object[] webSocketPing() throws Exception {
        Listener listener = new Listener();
        WebSocket socket = open(listener);
        within(socket.sendPing(ByteBuffer.wrap("are you there".getBytes(StandardCharsets.UTF_8))));
        String pong = within(listener.pongs);
        socket.abort();
        return new Object[] {"pong", pong, "kind", "PONG"};
    }

    static Object[] webSocketPinged() throws Exception {
        Listener listener = new Listener();
        WebSocket socket = open(listener);
        within(socket.sendText("ping me", true));
        String text = within(listener.texts);
        socket.abort();
        return new Object[] {"text", text};
    }

    static Object[] webSocketClosed() throws Exception {
        Listener listener = new Listener();
        within(open(listener).sendText("close 4001 bye", true));
        return within(listener.closed);
    }

    public static void main(String[] arguments) {
        base = arguments[0];
        kept = arguments[1];
        for (int i = 0; i < large.length; i++) large[i] = (byte) (i % 251);
        tell("get", () -> {
            var answer = text(to(base + "/o/hello"));
            return new Object[] {
                "status", answer.statusCode(), "body", answer.body(), "type", header(answer, "content-type")
            };
        });
        tell("head", () -> {
            var answer = text(to(base + "/o/hello").method("HEAD", BodyPublishers.noBody()));
            return new Object[] {
                "status", answer.statusCode(), "body", answer.body(), "length", header(answer, "content-length")
            };
        });
        var small = BodyPublishers.ofString("{\"instances\":[1,2,3]}");
        tell("post", () -> upload(to(base + "/o/digest").header("Content-Type", "application/json"), small));
        tell("upload", () -> upload(to(base + "/o/digest"), BodyPublishers.ofByteArray(large)));
        tell("upload-chunked", () -> upload(to(base + "/o/digest"), chunked()));
        tell("expect", () -> upload(to(base + "/o/digest").expectContinue(true), BodyPublishers.ofByteArray(large)));
        tell("expect-chunked", () -> upload(to(base + "/o/digest").expectContinue(true), chunked()));
        tell("download", () -> download(""));
        tell("download-chunked", () -> download("?chunked"));
        tell("keep-alive", Client::keepAlive);
        tell("gzip", () -> {
            var request = to(base + "/o/gzip").header("Accept-Encoding", "gzip");
            var answer = client.send(request.build(), BodyHandlers.ofByteArray());
            return new Object[] {
                "status", answer.statusCode(), "sha256", digest(answer.body()),
                "encoding", header(answer, "content-encoding")
            };
        });
        tell("204", () -> {
            var answer = text(to(base + "/o/nothing"));
            return new Object[] {"status", answer.statusCode(), "body", answer.body()};
        });
        tell("304", () -> {
            var answer = text(to(base + "/o/tagged").header("If-None-Match", "\"v1\""));
            return new Object[] {"status", answer.statusCode(), "body", answer.body(), "etag", header(answer, "etag")};
        });
        tell("404", () -> {
            var answer = text(to(base + "/no/such"));
            var found = java.util.regex.Pattern.compile("\"status\": ?(\\d+)").matcher(answer.body());
            Integer told = found.find() ? Integer.valueOf(found.group(1)) : null;
            return new Object[] {"status", answer.statusCode(), "type", header(answer, "content-type"), "told", told};
        });
        tell("redirect", Client::redirect);
        tell("early-close", Client::earlyClose);
        tell("events", Client::events);
        tell("websocket", Client::webSocket);
        tell("websocket-ping", Client::webSocketPing);
        tell("websocket-pinged", Client::webSocketPinged);
        tell("websocket-closed", Client::webSocketClosed);
        System.exit(0);
    }
}
