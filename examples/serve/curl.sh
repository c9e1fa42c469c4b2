# Ask about a picture: sh examples/serve/curl.sh URL TOKEN PICTURE QUESTION
set -eu
uploaded=$(curl -sS --fail-with-body "$1/v1/pictures" -H "Authorization: Bearer $2" \
    -H "Content-Type: application/octet-stream" --data-binary "@$3") || { echo "$uploaded" >&2; exit 1; }
id=$(printf %s "$uploaded" | sed 's/.*"id":"\([^"]*\)".*/\1/')
question=$(printf %s "$4" | sed 's/[\\"]/\\&/g') # as JSON has it
curl -sS --fail-with-body "$1/v1/chat/completions" -H "Authorization: Bearer $2" -H "Content-Type: application/json" -d "{
  \"messages\": [{\"role\": \"user\", \"content\": [
    {\"type\": \"image_url\", \"image_url\": {\"url\": \"picture:$id\"}}, {\"type\": \"text\", \"text\": \"$question\"}]}]}"
echo
