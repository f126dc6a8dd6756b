<?php
// A receiver of webhook_pg's events that verifies them, with PHP alone.
//
//     WEBHOOK_SECRET=whsec_... php -S 127.0.0.1:8000 receiver.php
//
// The package standard-webhooks/standard-webhooks (Packagist) does what is_genuine() does.

const TOLERANCE = 300; // seconds that a request may be old: a recorded one is of no use later

function is_genuine(string $key, string $id, string $timestamp, string $signatures, string $body): bool
{
    if (!preg_match('/^[0-9]{1,12}$/D', $timestamp) || abs(time() - (int) $timestamp) > TOLERANCE) {
        return false;
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    // There are several signatures while a secret is being rotated.
    foreach (explode(' ', $signatures) as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}

// In earnest a table with a unique key, written in the transaction that handles the event. PHP begins anew with each request.
function is_new(string $id): bool
{
    $directory = getenv('SEEN') ?: sys_get_temp_dir() . '/webhooks-seen';
    @mkdir($directory);
    return @fopen($directory . '/' . hash('sha256', $id), 'x') !== false;
}

function answer(int $status, string $text): void
{
    http_response_code($status);
    exit($text);
}

$key = base64_decode(preg_replace('/^whsec_/', '', getenv('WEBHOOK_SECRET')));
$id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
// The exact bytes: JSON that was read and written again has another signature.
$body = file_get_contents('php://input');
if (!is_genuine($key, $id, $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '', $body)) {
    answer(401, 'refused');
}
if (!is_new($id)) {
    answer(200, 'duplicate');
}
$event = json_decode($body);
file_put_contents('php://stdout', $event->type . ' ' . json_encode($event->data) . "\n");
answer(200, 'accepted');
