// Reads one picture of a word: read FOLDER PICTURE [--characters], where FOLDER has card.json and the ONNX file that it
// describes. Prints the confidence and the text; then, where they are asked for, a line for each character: its
// confidence, from where to where it stands in shares of the picture's width, - where nobody knows, and itself. The card
// is all that it knows of the recogniser.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "decoding.hpp"

using nlohmann::json;

namespace {

// Cubic convolution with a = -0.5 (Keys 1981).
double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((2.5 - 0.5 * x) * x - 4) * x + 2 : 0;
}

// What each of `to` pixels takes of `from` ones, a row each; where it shrinks, the curve is widened.
cv::Mat weights(int from, int to) {
  const double scale = double(from) / to, width = std::max(scale, 1.0);
  cv::Mat_<double> rows(to, from);
  for (int i = 0; i < to; ++i) {
    for (int j = 0; j < from; ++j) rows(i, j) = cubic((j - (i + 0.5) * scale + 0.5) / width);
    rows.row(i) /= cv::sum(rows.row(i))[0];
  }
  // Whole numbers of 1 / 2^22, so that sums do not depend on their order.
  for (double& weight : rows) weight = std::nearbyint(weight * (1 << 22)) / (1 << 22);
  return std::move(rows);
}

cv::Mat rounded(cv::Mat sums) {
  for (double& value : cv::Mat_<double>(sums)) value = std::floor(value + 0.5);
  sums.convertTo(sums, CV_8U);  // saturates
  return sums;
}

cv::Mat bicubic(const cv::Mat& picture, int height, int width) {
  std::vector<cv::Mat> planes;
  cv::split(picture, planes);
  const cv::Mat across = weights(picture.cols, width).t(), down = weights(picture.rows, height);
  for (cv::Mat& plane : planes) {
    plane.convertTo(plane, CV_64F);
    plane = rounded(plane * across);
    plane.convertTo(plane, CV_64F);
    plane = rounded(down * plane);
  }
  cv::Mat resized;
  cv::merge(planes, resized);
  return resized;
}

cv::Mat resize(const cv::Mat& picture, int height, int width, const std::string& interpolation) {
  if (picture.rows == height && picture.cols == width) return picture;
  if (interpolation == "bicubic") return bicubic(picture, height, width);
  cv::Mat resized;
  cv::resize(picture, resized, {width, height}, 0, 0, cv::INTER_LINEAR_EXACT);
  return resized;
}

// A picture of any size as the card's `preprocessing` fits it into height and width; `filled`: the share of that width.
cv::Mat fit(cv::Mat picture, int height, int width, const json& how, double& filled) {
  if (how.at("turn_tall") && picture.rows > 2 * picture.cols)
    cv::rotate(picture, picture, cv::ROTATE_90_COUNTERCLOCKWISE);
  if (how.at("fit") == "stretch") return resize(picture, height, width, how.at("interpolation"));
  const int kept = std::min(width, (height * picture.cols + picture.rows - 1) / picture.rows);
  filled = double(kept) / width;
  cv::Mat canvas(height, width, picture.type(), cv::Scalar::all(how.at("padding").get<int>()));
  resize(picture, height, kept, how.at("interpolation")).copyTo(canvas.colRange(0, kept));
  return canvas;
}

// The width that pictures are fitted into: the recipe's, where the file takes any.
int width_of(const json& card) {
  const json& told = card.at("input").at("shape")[3];
  return told.is_number() ? told.get<int>() : card.at("recipe").at("data").at("width").get<int>();
}

// Float32 in the layout (channels, height, width), red first.
std::vector<float> input_of(const std::string& path, const json& card, double& filled) {
  const json& shape = card.at("input").at("shape");
  const int channels = shape[1], height = shape[2], width = width_of(card);
  cv::Mat picture = cv::imread(path, channels == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR);
  if (picture.empty()) throw std::runtime_error(path + ": no picture");
  if (channels == 3) cv::cvtColor(picture, picture, cv::COLOR_BGR2RGB);
  picture = fit(picture, height, width, card.at("preprocessing"), filled);
  const float middle = card.at("preprocessing").at("middle");
  std::vector<float> values;
  for (int c = 0; c < channels; ++c)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) values.push_back((picture.ptr(y)[x * channels + c] - middle) / middle);
  return values;
}

// A card of before temperatures has none.
wordmill::Rule rule_of(const json& card) {
  const json& decode = card.at("decode");
  wordmill::Rule rule;
  rule.ctc = decode.at("rule") == "ctc";
  rule.blank = decode.value("blank", 0);
  rule.first = decode.at("first");
  rule.go = decode.value("go", 0);
  rule.stop = decode.value("stop", 1);
  rule.temperature = decode.value("temperature", 1.0);
  rule.symbols = wordmill::characters_of(card.at("charset").at("symbols"));
  return rule;
}

void print(const std::vector<wordmill::Character>& found, bool characters) {
  std::string text;
  for (const wordmill::Character& one : found) text += one.text;
  std::printf("%.4f\t%s\n", wordmill::confidence_of(found), text.c_str());
  for (const wordmill::Character& one : found) {
    if (!characters) break;
    if (one.placed)
      std::printf("%.4f\t%.4f\t%.4f\t%s\n", one.confidence, one.start, one.end, one.text.c_str());
    else
      std::printf("%.4f\t-\t-\t%s\n", one.confidence, one.text.c_str());
  }
}

void read(const std::string& folder, const std::string& path, bool characters) {
  std::ifstream file(folder + "/card.json");
  if (!file) throw std::runtime_error(folder + "/card.json: cannot be opened");
  const json card = json::parse(file);
  double filled = 1;
  std::vector<float> values = input_of(path, card, filled);

  setenv("ORT_DISABLE_TELEMETRY", "1", 1);  // some builds send what they run to their maker
  Ort::Env environment;
  const std::string model = folder + "/" + card.at("file").at("name").get<std::string>();
  Ort::Session session(environment, model.c_str(), Ort::SessionOptions());
  const json& size = card.at("input").at("shape");
  const int64_t shape[] = {1, size[1], size[2], width_of(card)};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), shape, 4);
  const std::string given = card.at("input").at("name"), wanted = card.at("output").at("name");
  const char *inputs[] = {given.c_str()}, *outputs[] = {wanted.c_str()};
  const auto found = session.Run(Ort::RunOptions(), inputs, &input, 1, outputs, 1);

  const auto sizes = found[0].GetTensorTypeAndShapeInfo().GetShape();
  const bool straightened = card.at("recipe").at("model").value("rectification", "none") != "none";
  const float* logits = found[0].GetTensorData<float>();
  print(wordmill::read(logits, int(sizes[1]), int(sizes[2]), rule_of(card), straightened, filled), characters);
}

}  // namespace

int main(int count, char** arguments) {
  const bool characters = count == 4 && std::strcmp(arguments[3], "--characters") == 0;
  if (count != 3 && !characters) {
    std::fprintf(stderr, "usage: read FOLDER PICTURE [--characters]\n");
    return 2;
  }
  try {
    read(arguments[1], arguments[2], characters);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
