// com.sun.net.httpserver as a server; what each path answers is told in with_aiohttp.py.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.concurrent.Executors;

public class Server {
    public static void main(String[] arguments) throws Exception {
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[0]));
        HttpServer server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            try (exchange) {
                answer(exchange);
            } catch (Exception error) {
                error.printStackTrace();
            }
        });
        server.start();
    }

    static void answer(HttpExchange exchange) throws Exception {
        exchange.getResponseHeaders().set("X-Peer", exchange.getRemoteAddress().toString());
        switch (exchange.getRequestURI().getPath()) {
            case "/hello" -> whole(exchange, "hello\n".getBytes());
            case "/chunked" -> {
                exchange.sendResponseHeaders(200, 0);
                byte[] block = new byte[65536];
                for (int number = 0; number < 16; number++) {
                    Arrays.fill(block, (byte) ('a' + number));
                    exchange.getResponseBody().write(block);
                    exchange.getResponseBody().flush();
                }
            }
            case "/digest" -> {
                MessageDigest sum = MessageDigest.getInstance("SHA-256");
                byte[] block = new byte[65536];
                long size = 0;
                for (int got; (got = exchange.getRequestBody().read(block)) >= 0; size += got) sum.update(block, 0, got);
                String text = "{\"size\":" + size + ",\"sha256\":\"" + HexFormat.of().formatHex(sum.digest()) + "\"}";
                whole(exchange, text.getBytes());
            }
            default -> exchange.sendResponseHeaders(204, -1);
        }
    }

    static void whole(HttpExchange exchange, byte[] body) throws IOException {
        if (exchange.getRequestMethod().equals("HEAD")) {
            exchange.getResponseHeaders().set("Content-Length", String.valueOf(body.length));
            exchange.sendResponseHeaders(200, -1);
        } else {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
        }
    }
}
