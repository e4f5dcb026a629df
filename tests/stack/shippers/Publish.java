import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.io.FileInputStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Publishes one message as Logstash's RabbitMQ output does by way of march_hare: one PKCS #12 file
 * as key store and as trust store, a login by password, the exchange declared at the start, and no
 * confirms (logstash-output-rabbitmq 7.4, rabbitmq.rb; march_hare 4.7, session.rb).
 */
class Publish {
    public static void main(String[] arguments) throws Exception {
        String store = arguments[0], password = arguments[1], user = arguments[2];
        String exchange = arguments[3], body = arguments[4];
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (FileInputStream file = new FileInputStream(store)) {
            keys.load(file, password.toCharArray());
        }
        KeyManagerFactory own = KeyManagerFactory.getInstance("PKIX");
        own.init(keys, password.toCharArray());
        TrustManagerFactory trusted = TrustManagerFactory.getInstance("PKIX");
        trusted.init(keys);
        SSLContext context = SSLContext.getInstance("TLSv1.2");
        context.init(own.getKeyManagers(), trusted.getTrustManagers(), null);
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("rabbitmq");
        factory.setPort(5671);
        factory.setUsername(user);
        factory.setPassword(password);
        factory.useSslProtocol(context);
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            channel.exchangeDeclare(exchange, "topic", true);
            channel.basicPublish(exchange, "logstash", MessageProperties.PERSISTENT_BASIC,
                    body.getBytes(StandardCharsets.UTF_8));
            // A channel that the broker has closed says so here.
            channel.basicQos(1);
            System.out.println("published");
        }
    }
}
