# Ask about a picture: sh examples/serve/curl.sh URL TOKEN PICTURE QUESTION
set -eu
[ $# -eq 4 ] || { echo "usage: sh curl.sh URL TOKEN PICTURE QUESTION" >&2; exit 2; }
[ -f "$3" ] && [ -r "$3" ] || { echo "no file that can be read at $3" >&2; exit 1; }
uploaded=$(curl -sS --fail-with-body "$1/v1/pictures" -H "Authorization: Bearer $2" \
    -H "Content-Type: application/octet-stream" --data-binary "@$3") || { echo "$uploaded" >&2; exit 1; }
id=$(printf %s "$uploaded" | sed 's/.*"id":"\([^"]*\)".*/\1/')
# as JSON has it: quotes and line breaks behind a backslash, no other control characters
question=$(printf %s "$4" | tr '\001-\011\013-\037' ' ' | sed 's/[\\"]/\\&/g' | awk 'NR > 1 { printf "%s", "\\n" } { printf "%s", $0 }')
curl -sS --fail-with-body "$1/v1/chat/completions" -H "Authorization: Bearer $2" -H "Content-Type: application/json" -d "{
  \"messages\": [{\"role\": \"user\", \"content\": [
    {\"type\": \"image_url\", \"image_url\": {\"url\": \"picture:$id\"}}, {\"type\": \"text\", \"text\": \"$question\"}]}]}"
echo
