# Ask about a picture: sh examples/serve/curl.sh URL TOKEN PICTURE QUESTION
set -eu
id=$(curl -fsS "$1/v1/pictures" -H "Authorization: Bearer $2" -H "Content-Type: application/octet-stream" \
    --data-binary "@$3" | sed 's/.*"id":"\([^"]*\)".*/\1/')
curl -fsS "$1/v1/chat/completions" -H "Authorization: Bearer $2" -H "Content-Type: application/json" -d "{
  \"messages\": [{\"role\": \"user\", \"content\": [
    {\"type\": \"image_url\", \"image_url\": {\"url\": \"picture:$id\"}}, {\"type\": \"text\", \"text\": \"$4\"}]}]}"
echo
