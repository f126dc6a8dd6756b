# A receiver of webhook_pg's events that verifies them, with the standard library alone.
#
#     WEBHOOK_SECRET=whsec_... ruby receiver.rb [port]
#
# The gem `standardwebhooks` does what genuine? does. The server below is the smallest that will do: in earnest it is Rack's.

require "json"
require "openssl"
require "socket"

KEY = ENV.fetch("WEBHOOK_SECRET").delete_prefix("whsec_").unpack1("m")
TOLERANCE = 300 # seconds that a request may be old: a recorded one is of no use later

def genuine?(headers, body)
  id, timestamp = headers.values_at("webhook-id", "webhook-timestamp").map(&:to_s)
  return false unless timestamp.match?(/\A[0-9]{1,12}\z/) && (Time.now.to_i - timestamp.to_i).abs <= TOLERANCE

  expected = "v1," + [OpenSSL::HMAC.digest("SHA256", KEY, "#{id}.#{timestamp}.".b + body)].pack("m0")
  # There are several signatures while a secret is being rotated.
  headers["webhook-signature"].to_s.split(" ").any? { |signature| OpenSSL.secure_compare(expected, signature) }
end

# In earnest a table with a unique key, written in the transaction that handles the event.
SEEN = {}

def answer_to(headers, body)
  return [401, "refused"] unless genuine?(headers, body)
  return [200, "duplicate"] if SEEN.key?(headers["webhook-id"])

  event = JSON.parse(body)
  puts "#{event["type"]} #{event["data"].to_json}"
  SEEN[headers["webhook-id"]] = true
  [200, "accepted"]
end

$stdout.sync = true
server = TCPServer.new("127.0.0.1", Integer(ARGV[0] || 8000))
loop do
  Thread.new(server.accept) do |client|
    client.gets # the request line
    headers = {}
    while (line = client.gets&.chomp) && !line.empty?
      name, value = line.split(":", 2)
      headers[name.downcase] = value.to_s.strip
    end
    # The exact bytes: JSON that was read and written again has another signature.
    body = client.read(headers["content-length"].to_i).to_s
    status, text = answer_to(headers, body)
    client.write "HTTP/1.1 #{status} -\r\ncontent-length: #{text.bytesize}\r\nconnection: close\r\n\r\n#{text}"
  ensure
    client.close
  end
end
