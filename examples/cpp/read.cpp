// Reads one picture of a word: read FOLDER PICTURE, where FOLDER has card.json and the ONNX file that it describes.
// Prints the confidence and the text. The card is all that it knows of the recogniser.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

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

// A picture of any size as the card's `preprocessing` fits it into height and width.
cv::Mat fit(cv::Mat picture, int height, int width, const json& how) {
  if (how.at("turn_tall") && picture.rows > 2 * picture.cols)
    cv::rotate(picture, picture, cv::ROTATE_90_COUNTERCLOCKWISE);
  if (how.at("fit") == "stretch") return resize(picture, height, width, how.at("interpolation"));
  const int kept = std::min(width, (height * picture.cols + picture.rows - 1) / picture.rows);
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
std::vector<float> input_of(const std::string& path, const json& card) {
  const json& shape = card.at("input").at("shape");
  const int channels = shape[1], height = shape[2], width = width_of(card);
  cv::Mat picture = cv::imread(path, channels == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR);
  if (picture.empty()) throw std::runtime_error(path + ": no picture");
  if (channels == 3) cv::cvtColor(picture, picture, cv::COLOR_BGR2RGB);
  picture = fit(picture, height, width, card.at("preprocessing"));
  const float middle = card.at("preprocessing").at("middle");
  std::vector<float> values;
  for (int c = 0; c < channels; ++c)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) values.push_back((picture.ptr(y)[x * channels + c] - middle) / middle);
  return values;
}

// The characters of UTF-8 text, one string each.
std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> found;
  for (const char byte : text) {
    if ((byte & 0xC0) != 0x80) found.emplace_back();
    found.back() += byte;
  }
  return found;
}

// The likeliest class of each step and the logarithm of its probability, by a softmax.
struct Best {
  int number;
  double score;
};

std::vector<Best> best_of(const float* logits, int steps, int classes) {
  std::vector<Best> best;
  for (const float* row = logits; row != logits + steps * classes; row += classes) {
    const float* peak = std::max_element(row, row + classes);
    double sum = 0;
    for (int c = 0; c < classes; ++c) sum += std::exp(row[c] - *peak);
    best.push_back({int(peak - row), -std::log(sum)});
  }
  return best;
}

// The steps that are characters, as the card's `decode` rule has them.
std::vector<Best> kept_of(const std::vector<Best>& best, const json& decode) {
  std::vector<Best> kept;
  if (decode.at("rule") == "ctc") {
    int before = decode.at("blank");
    for (const Best& step : best) {
      if (step.number != decode.at("blank") && step.number != before) kept.push_back(step);
      before = step.number;
    }
    return kept;
  }
  for (const Best& step : best) {
    if (step.number == decode.at("stop")) return kept;
    if (step.number != decode.at("go")) kept.push_back(step);
  }
  return {};  // without a stop there is no text
}

void read(const std::string& folder, const std::string& path) {
  std::ifstream file(folder + "/card.json");
  if (!file) throw std::runtime_error(folder + "/card.json: cannot be opened");
  const json card = json::parse(file);
  std::vector<float> values = input_of(path, card);

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
  const auto best = best_of(found[0].GetTensorData<float>(), int(sizes[1]), int(sizes[2]));
  const auto symbols = characters(card.at("charset").at("symbols"));
  const int first = card.at("decode").at("first");
  std::string text;
  double sum = 0;
  const auto kept = kept_of(best, card.at("decode"));
  for (const Best& step : kept) {
    text += symbols.at(step.number - first);
    sum += step.score;
  }
  // A card of before temperatures has none.
  const double temperature = card.at("decode").value("temperature", 1.0);
  std::printf("%.4f\t%s\n", kept.empty() ? 0 : std::exp(sum / kept.size() / temperature), text.c_str());
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: read FOLDER PICTURE\n");
    return 2;
  }
  try {
    read(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
